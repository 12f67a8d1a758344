"""Reads the files of a BEIR folder, plain or .zst, and writes them."""
import json
import subprocess
import sys


def read_text(folder, name):
    """The text of folder/name, plain or .zst."""
    plain, packed = folder / name, folder / (name + ".zst")
    if plain.exists():
        return plain.read_text(encoding="utf-8")
    if packed.exists():
        unpack = ["zstd", "-dc", "--long=27", str(packed)]
        return subprocess.run(unpack, check=True, capture_output=True).stdout.decode()
    sys.exit(f"error: no {name} or {name}.zst in {folder}")


def read_lines(folder, name):
    """Objects of folder/name, one a line."""
    return [json.loads(line) for line in read_text(folder, name).split("\n") if line.strip()]


def read_gold(folder, name="qrels.tsv"):
    """Question id → ids of its relevant documents, in the file's order."""
    gold = {}
    for line in read_text(folder, name).splitlines()[1:]:
        question, document, grade = line.split("\t")
        if float(grade) > 0:
            gold.setdefault(question, []).append(document)
    return gold


def write_lines(folder, name, objects):
    """folder/name with an object a line."""
    with open(folder / name, "w", encoding="utf-8") as out:
        for o in objects:
            out.write(json.dumps(o, ensure_ascii=False) + "\n")


def full_text(document):
    """As `msa add` stores it: title, line end, text."""
    title = document.get("title") or ""
    return f"{title}\n{document['text']}" if title else document["text"]
