#!/usr/bin/env python3
"""Every C++ file of the repository is as clang-format leaves it. Usage: clang_format_test.py SOURCE_ROOT

Exit 77 (skipped) where the clang-format at hand is none, or another version than the one the files were formatted with:
versions differ in small things.
"""
import re
import shutil
import subprocess
import sys

from tracked import tracked_files

MAJOR_VERSION = 14  # Debian 12
SKIPPED = 77


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def main():
    root = sys.argv[1]
    program = shutil.which(f"clang-format-{MAJOR_VERSION}") or shutil.which("clang-format")
    if program is None:
        skip("there is no clang-format")
    version = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    major = re.search(r"version (\d+)", version)
    if major is None or int(major.group(1)) != MAJOR_VERSION:
        skip(f"the files are formatted with clang-format {MAJOR_VERSION}, this is {version.strip()}")
    files = [f for f in tracked_files(root) if f.endswith((".h", ".cc", ".cu", ".cuh"))]
    if not files:
        sys.exit("error: no C++ files found")
    result = subprocess.run([program, "--dry-run", "-Werror", *files], cwd=root)
    if result.returncode != 0:
        print("fix: clang-format -i on the files named above")
    else:
        print(f"{len(files)} files are formatted")
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
