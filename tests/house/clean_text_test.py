#!/usr/bin/env python3
"""No tracked file names a path of one machine or the host of a package registry, or says that it is unfinished.

Usage: clean_text_test.py SOURCE_ROOT
       clean_text_test.py SOURCE_ROOT --self-test      plants each kind of fault and expects it to be found
"""
import pathlib
import re
import sys

from tracked import tracked_files

# Written in pieces, so that this file passes its own test.
FORBIDDEN = {
    "path of one machine": r"(?<![\w.$}/-])/(?:wo" r"rk|ro" r"ot|ho" r"me/\w+)/[\w.]",
    "host of a package registry": r"\b(?:pyp" r"i\.org|pythonho" r"sted\.org|deb\.deb" r"ian\.org|security\.deb" r"ian\.org)",
    "unfinished": r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b",
}
PATTERNS = {kind: re.compile(pattern) for kind, pattern in FORBIDDEN.items()}
# Text of others: documents, vocabularies, generated test data.
OTHERS_TEXT = re.compile(r"^(?:data/|tests/data/|models/[^/]+/[^/]*\.json$|LICENSE$)")


def faults_of(text):
    """(line number, kind, the words found) of every fault."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        for kind, pattern in PATTERNS.items():
            match = pattern.search(line)
            if match:
                found.append((number, kind, match.group(0)))
    return found


def self_test():
    bad = ["open /wo" "rk/data", "'/ro" "ot/.cache'", "# TO" "DO: later", "https://pyp" "i.org/simple", "/ho" "me/ada/x"]
    good = ["framework/data", "the root/folder", "todo list", "models/base.gguf", "arxiv.org/abs/2603.23516", "$HOME/x"]
    wrong = [line for line in bad if not faults_of(line)] + [line for line in good if faults_of(line)]
    print(f"{len(bad) + len(good)} planted lines, {len(wrong)} misjudged: {wrong}")
    return 1 if wrong else 0


def main():
    if "--self-test" in sys.argv[2:]:
        sys.exit(self_test())
    root = pathlib.Path(sys.argv[1])
    count = checked = 0
    for name in tracked_files(root):
        content = (root / name).read_bytes()
        if OTHERS_TEXT.match(name) or b"\0" in content:
            continue
        checked += 1
        for number, kind, words in faults_of(content.decode("utf-8", errors="replace")):
            count += 1
            print(f"{name}:{number}: {kind}: {words}")
    print(f"{checked} files checked, {count} faults")
    sys.exit(1 if count or not checked else 0)


if __name__ == "__main__":
    main()
