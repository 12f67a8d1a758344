#!/usr/bin/env python3
"""Runs `msa eval ARGUMENTS --json` and keeps the report in RECORD with command, commit, date and load of the machine.

usage: measure.py [--program MSA] RECORD.json ARGUMENTS…
A record that is there is not measured again. Paths inside it are cut to their last parts.
"""
import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def cut_paths(value):
    """The same value, its strings that are paths cut to their last part."""
    if isinstance(value, dict):
        return {key: cut_paths(v) for key, v in value.items()}
    if isinstance(value, list):
        return [cut_paths(v) for v in value]
    is_path = isinstance(value, str) and "://" not in value and (value.startswith("/") or pathlib.Path(value).exists())
    return pathlib.Path(value).name if is_path else value


def commit():
    """Short name of the commit, a + behind it where the sources differ from it."""
    git = ["git", "-C", str(ROOT)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True).stdout
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "src", "models"], check=False).returncode
    return name.strip() + ("+" if changed else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "build/release/msa"), help="default: build/release/msa")
    parser.add_argument("record", type=pathlib.Path)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of msa eval, without --json")
    options = parser.parse_args()
    if options.record.exists():
        print(f"{options.record} is there", file=sys.stderr)
        return
    load, built_from = os.getloadavg()[0], commit()
    run = subprocess.run([options.program, "eval", *options.arguments, "--json"], stdout=subprocess.PIPE, text=True,
                         check=False)
    if run.returncode != 0:
        sys.exit(run.returncode)
    record = {"command": " ".join(["msa", "eval", *cut_paths(options.arguments)]), "commit": built_from,
              "date": datetime.date.today().isoformat(), "load_before": round(load, 2),
              "report": cut_paths(json.loads(run.stdout))}
    options.record.parent.mkdir(parents=True, exist_ok=True)
    part = options.record.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.rename(options.record)
    print(options.record)


if __name__ == "__main__":
    main()
