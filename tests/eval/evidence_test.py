#!/usr/bin/env python3
"""The way from a question set to the evidence page: baseline run, record, page; and the pages in docs are those of their records.

Usage: evidence_test.py MSA_PROGRAM SOURCE_ROOT      exit 77 (skipped) without the packages bm25s and PyStemmer
"""
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(sys.argv[2]).resolve()
sys.path.insert(0, str(ROOT / "scripts/eval"))
try:
    import baselines
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

PROGRAM, TOWNS = sys.argv[1], ROOT / "tests/data/eval/towns"
faults = []


def expect(condition, what):
    if not condition:
        faults.append(what)


def script(name, *arguments):
    command = [sys.executable, str(ROOT / "scripts/eval" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def bm25_run(path):
    documents, questions = baselines.read_lines(TOWNS, "corpus.jsonl"), baselines.read_lines(TOWNS, "queries.jsonl")
    rankings = baselines.bm25_rankings([baselines.full_text(d) for d in documents], [q["text"] for q in questions])
    baselines.write_run(path, [q["_id"] for q in questions], [d["_id"] for d in documents], rankings, "bm25")


def check_fusion():
    # 1/61 + 1/62 for both of the first two, then 1/63; ties go to the lower document.
    expect(list(baselines.fused([[2, 1], [1, 2, 0]], 5)) == [1, 2, 0], "fusion of two rankings")
    expect(list(baselines.fused([[], [4]], 5)) == [4], "fusion with an empty ranking")
    ranked = baselines.bm25_rankings(["red red fox", "the blue fox", "green"], ["blue fox", "the of", "nothing here"])
    expect(list(ranked[0]) == [1, 0], "BM25 leaves out documents without a word of the question")
    expect([len(r) for r in ranked[1:]] == [0, 0], "BM25 without words in common")


def check_records(folder):
    record, run = folder / "records" / "towns.retrieval-bm25.json", folder / "bm25.trec"
    bm25_run(run)
    arguments = ["--program", PROGRAM, record, "retrieval", "--data", TOWNS, "--documents-from", run]
    measure = lambda: script("measure.py", *arguments)
    expect(measure().returncode == 0, "measuring a run")
    content = json.loads(record.read_text())
    expect(content["command"] == "msa eval retrieval --data towns --documents-from bm25.trec", "the command kept")
    expect(str(ROOT) not in record.read_text() and str(folder) not in record.read_text(), "no paths in a record")
    expect(content["report"]["metrics"]["mean"]["recall@16"]["value"] == 1.0, "BM25 finds the towns")
    before = record.read_bytes()
    expect(measure().returncode == 0 and record.read_bytes() == before, "a record is not measured again")
    bad = folder / "records/bad.json"
    failed = script("measure.py", "--program", PROGRAM, bad, "retrieval", "--data", folder / "none")
    expect(failed.returncode == 1 and "no such folder" in failed.stderr, "a failing measurement fails")
    expect(not bad.exists(), "and leaves no record")
    return content


def check_page(folder, record):
    records, page = folder / "records", folder / "page.md"
    (records / "notes.md").write_text("A note.\n")
    expect(script("report.py", records, page).returncode == 0, "making the page")
    text = page.read_text()
    estimate = record["report"]["metrics"]["mean"]["recall@1"]
    shown = f"{estimate['value']:.2f} [{estimate['interval'][0]:.2f} {estimate['interval'][1]:.2f}]".replace("0.", ".")
    for words in ("## towns", "50 documents; 20 questions", "| BM25 |", shown, "A note.", record["commit"]):
        expect(words in text, f"'{words}' in the page")
    expect(script("report.py", records, page, "--check").returncode == 0, "the page is what its records give")
    page.write_text(text.replace("| BM25 |", "| ours |"))
    expect(script("report.py", records, page, "--check").returncode == 1, "a changed page is found")
    for name, fingerprint in (("a", "1" * 32), ("b", "2" * 32)):
        other = {**record, "report": {**record["report"], "model_fingerprint": fingerprint}}
        (records / f"{name}.retrieval.json").write_text(json.dumps(other))
    mixed = script("report.py", records, page)
    expect(mixed.returncode == 1 and "different models" in mixed.stderr, "records of two models are refused")
    expect(script("report.py", folder / "empty", page).returncode == 1, "no records are refused")


def main():
    check_fusion()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        check_page(folder, check_records(folder))
    for folder in ("evidence", "evidence-run-2"):
        docs = script("report.py", ROOT / "docs" / folder, ROOT / f"docs/{folder}.md", "--check")
        expect(docs.returncode == 0, f"docs/{folder}.md: {docs.stdout}{docs.stderr} run scripts/report.sh")
    print(*faults or ["all as expected"], sep="\n")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
