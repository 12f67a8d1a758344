#!/usr/bin/env python3
"""Runs our benchmarks and the baselines by turns and prints the ratios. Called by compare.sh."""
import argparse
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
PROMPT_TOKENS = 512
NEW_TOKENS = 128
KEYS = 200_000
DIMENSION = 192  # key/value heads x head size of the default model
QUERY_TOKENS = 32


def json_of(command):
    environment = dict(os.environ, PYTHONWARNINGS="ignore")
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, env=environment)
    if result.returncode != 0:
        sys.exit(f"error: this failed: {' '.join(map(str, command))}")
    return json.loads(result.stdout)


def ours(args, what, *options):
    model = [] if what == "route" else ["--model", args.model]
    return json_of([args.msa, "bench", what, "--json", "--threads", args.threads, *model, *options])[what]


def llama(args, *options):
    return json_of([args.llama_python, HERE / "llama_baseline.py", "--threads", args.threads, *options])


def one_round(args):
    """Figures where more is better: tokens per second, or passes over the keys per second."""
    encode = ours(args, "encode", "--tokens", PROMPT_TOKENS)
    prefill = llama(args, "--prefill", args.f16, "--prompt", PROMPT_TOKENS)
    decode = ours(args, "decode", "--new-tokens", NEW_TOKENS)
    their_decode = llama(args, "--decode", pathlib.Path(args.model) / "base.gguf", "--tokens", NEW_TOKENS)
    route = ours(args, "route", "--chunks", KEYS, "--query", QUERY_TOKENS)
    flat = json_of([args.faiss_python, HERE / "faiss_baseline.py", "--threads", args.threads, "--keys", KEYS,
                    "--dimension", DIMENSION, "--queries", QUERY_TOKENS])
    return {
        "encode": (encode["tokens_per_second"], prefill["prefill"]["tokens_per_s"]),
        "decode": (decode["tokens_per_second"], their_decode["decode"]["tokens_per_s"]),
        "route": (1e3 / route["ms_per_layer"], 1e3 / flat["ms"]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--msa", "--model", "--f16", "--llama-python", "--faiss-python"):
        parser.add_argument(name, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    rounds = []
    for number in range(1, args.rounds + 1):
        print(f"        round {number} of {args.rounds}", file=sys.stderr)
        rounds.append(one_round(args))
    units = {"encode": "tokens/s", "decode": "tokens/s", "route": "scans/s"}
    theirs = {"encode": "llama.cpp prefill, F16", "decode": "llama.cpp, the same 4-bit file",
              "route": "faiss-cpu IndexFlatIP, float32 keys"}
    result = {"threads": args.threads, "rounds": args.rounds, "load_at_end": os.getloadavg()[0]}
    for what, unit in units.items():
        best_ours = max(r[what][0] for r in rounds)
        best_theirs = max(r[what][1] for r in rounds)
        result[what] = {"unit": unit, "ours": round(best_ours, 2), "theirs": round(best_theirs, 2),
                        "ratio": round(best_ours / best_theirs, 3), "baseline": theirs[what],
                        "each_round": [round(r[what][0] / r[what][1], 3) for r in rounds]}
        print(f"        {what:7} {best_ours:10.1f} {unit} against {best_theirs:10.1f} of {theirs[what]}: "
              f"{best_ours / best_theirs:.2f}x", file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
