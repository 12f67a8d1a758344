#!/usr/bin/env python3
"""Every #include "folder/…" in src/ goes downward, as docs/architecture.md draws it.

Usage: include_directions_test.py SOURCE_ROOT            checks SOURCE_ROOT/src
       include_directions_test.py SOURCE_ROOT --self-test plants violations in a scratch tree and expects each to be found
"""
import pathlib
import re
import sys
import tempfile

# Folder → folders it may include from, besides itself. core is open to all. A folder not named here is an error.
ALLOWED = {
    "core": set(),
    "io": set(),
    "ops": set(),
    "comm": set(),
    "tokenizer": {"io"},
    "model": {"io", "ops"},
    "bank": {"io"},
    "router": {"bank", "ops", "comm"},
    "engine": {"model", "router", "bank", "tokenizer", "io", "ops", "comm"},
    "server": {"engine", "model", "router", "bank", "tokenizer", "io", "ops", "comm"},
    "eval": {"engine", "model", "router", "bank", "tokenizer", "io", "ops", "comm"},
    "cli": {"server", "eval", "engine", "model", "router", "bank", "tokenizer", "io", "ops", "comm"},
    "train": {"model", "bank", "tokenizer", "io", "ops", "comm"},
}
# Header of an outside library → the only files that may include it, as prefixes below src/.
OUTSIDE = {
    "sqlite3.h": ("bank/document_store",),
    "nccl.h": ("comm/",),
    "mpi.h": ("comm/",),
    "torch/": ("train/",),
    "oneapi/": ("ops/", "core/"),
    "hwy/": ("ops/", "core/"),
    "cuda": ("ops/", "core/", "train/"),
    "cublasLt.h": ("core/",),
    "cudnn": ("core/",),
    "pcre2.h": ("tokenizer/",),
    "CLI/": ("cli/", "train/"),
    "openssl/": ("server/",),
    "prometheus/": ("server/",),
    "httplib.h": ("server/", "eval/judge."),
}
SUFFIXES = {".h", ".cc", ".cu", ".cuh", ".inc"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.MULTILINE)


def problems_of(source_dir):
    problems = []
    for path in sorted(p for p in source_dir.rglob("*") if p.suffix in SUFFIXES):
        relative = path.relative_to(source_dir).as_posix()
        text = path.read_text(encoding="utf-8")
        for match in INCLUDE.finditer(text):
            quote, header = match.groups()
            why = violation(relative, quote, header)
            if why:
                line = text.count("\n", 0, match.start(2)) + 1
                problems.append(f"src/{relative}:{line}: {header}: {why}")
    return problems


def violation(file, quote, header):
    """What is wrong with this include, or None."""
    for prefix, homes in OUTSIDE.items():
        if header.startswith(prefix):
            return None if file.startswith(homes) else f"only {', '.join(homes)} may include {prefix}"
    if quote == "<":
        return None
    if "/" not in header:
        return "own headers are included from src/: \"folder/file.h\""
    if ".." in header.split("/"):
        return "own headers are included from src/, without .."
    here, there = file.split("/")[0], header.split("/")[0]
    for folder in (here, there):
        if folder not in ALLOWED:
            return f"folder {folder}/ has no place in the directions"
    if there in (here, "core") or there in ALLOWED[here]:
        return None
    return f"{here}/ may not include from {there}/"


PLANTED = [  # file, include line, is it a violation?
    ("model/a.cc", '#include "bank/bank.h"', True),
    ("model/b.h", '#include "router/router.h"', True),
    ("engine/a.cc", '#include "train/loss.h"', True),
    ("core/a.h", '#include "io/file.h"', True),
    ("bank/segment.cc", "#include <sqlite3.h>", True),
    ("router/a.cc", '#  include "engine/engine.h"', True),
    ("ops/kernel.cu", '#include "model/config.h"', True),
    ("ops/a.cc", '#include "max.h"', True),
    ("ops/b.cc", '#include "../core/tensor.h"', True),
    ("engine/b.cc", '#include "cli/commands.h"', True),
    ("misc/a.cc", '#include "core/tensor.h"', True),
    ("model/c.cc", "#include <torch/torch.h>", True),
    ("bank/document_store.cc", "#include <sqlite3.h>", False),
    ("bank/document_store_query.cc", "#include <sqlite3.h>", False),
    ("ops/c.cc", '#include "hwy/highway.h"', False),  # Highway's own headers quote theirs
    ("model/e.cc", '#include "hwy/highway.h"', True),
    ("router/b.cc", '#include "bank/bank.h"\n#include "ops/linear.h"\n#include "core/tensor.h"', False),
    ("model/d.cc", '#include <vector>\n#include "model/config.h"\n#include "ops/linear.h"', False),
]


def self_test():
    failures = 0
    for file, lines, wrong in PLANTED:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / file
            path.parent.mkdir(parents=True)
            path.write_text(lines + "\n", encoding="utf-8")
            found = problems_of(pathlib.Path(folder))
        if bool(found) != wrong:
            failures += 1
            print(f"self-test: {file}: {lines!r}: expected {'a' if wrong else 'no'} violation, found {found}")
    return failures


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if "--self-test" in sys.argv[2:]:
        failures = self_test()
        print(f"{len(PLANTED)} planted cases, {failures} misjudged")
        sys.exit(1 if failures else 0)
    source_dir = pathlib.Path(sys.argv[1]) / "src"
    if not any(source_dir.rglob("*.cc")):
        sys.exit(f"error: no sources under {source_dir}")
    problems = problems_of(source_dir)
    print("\n".join(problems) if problems else "all includes go downward")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
