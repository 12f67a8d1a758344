"""What scripts/train/router_negatives.py merges, and what recipes/router_negatives.sh makes with it.
Usage: router_negatives_test.py ROUTER_NEGATIVES ROUTER_NEGATIVES_SH

The program and the teacher are stand-ins here: shell scripts that write down how they are called.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

HEADER = "query-id\tcorpus-id\n"


def merged(place, run, negatives, *options):
    """The program's status and error text, and the lines of its output, if any."""
    (place / "run.trec").write_text(run, encoding="utf-8")
    (place / "negatives.tsv").write_text(negatives, encoding="utf-8")
    output = place / "hard.tsv"
    output.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, sys.argv[1], place / "run.trec", place / "negatives.tsv", output, *options],
                          capture_output=True, text=True, check=False)
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else None
    return done, lines


def test_merging(place):
    # Of q1 the scores count and not the order of lines; d4 and d5 are equal, and keep theirs.
    run = ("q1 Q0 d3 3 0.1 msa\nq1 Q0 d1 1 0.9 msa\nq1 Q0 d4 4 -2 msa\nq1 Q0 d5 5 -2.0 msa\nq1 Q0 d2 2 5e-1 msa\n"
           "q3 Q0 d9 1 1 msa\n")
    negatives = ("query-id\tcorpus-id\tscore\nq2\td1\t0.9\nq2\td2\t0.8\nq2\td3\t0.7\nq2\td4\t0.6\n"
                 "q1\td2\t0.9\nq1\td7\t0.8\nq1\té8\t0.7\nq1\td6\t0.6\n")
    done, lines = merged(place, run, negatives, "--first", "2", "--others", "2")
    assert done.returncode == 0, done.stderr
    assert "9 negatives of 3 questions, 2 of them in the run" in done.stderr, done.stderr
    assert lines == ["query-id\tcorpus-id", "q2\td1", "q2\td2", "q2\td3", "q2\td4", "q1\td1", "q1\td2", "q1\td7",
                     "q1\té8", "q3\td9"], lines
    _, lines = merged(place, run, negatives, "--first", "4", "--others", "0")
    assert lines[5:] == ["q1\td1", "q1\td2", "q1\td3", "q1\td4", "q3\td9"], lines
    # d2 and d7, with a header of two columns, line ends of Windows and a blank line.
    _, lines = merged(place, run, "query-id\tcorpus-id\r\nq1\td2\r\n\nq1\td7\r\n", "--first", "1", "--others", "1")
    assert lines == ["query-id\tcorpus-id", "q1\td1", "q1\td2", "q3\td9"], lines
    # Without options: ten and three. Without a header the first line counts.
    many = "".join(f"q1 Q0 d{i} {i} {-i} msa\n" for i in range(12))
    _, lines = merged(place, many, "".join(f"q1\te{i}\t0\n" for i in range(5)))
    assert lines[1:] == [f"q1\td{i}" for i in range(10)] + ["q1\te0", "q1\te1", "q1\te2"], lines


def test_refusals(place):
    run, negatives = "q1 Q0 d1 1 0.9 msa\n", HEADER + "q1\td2\n"
    for wrong_run, wrong_negatives, options, words in (
        (run + "q1 Q0 d2 2 0.5\n", negatives, [], "run.trec:2: not query-id"),
        (run + "q1 Q0 d2 2 high msa\n", negatives, [], "run.trec:2: not query-id"),
        (run + "q1 Q0 d2 2 nan msa\n", negatives, [], "run.trec:2: not query-id"),
        (run + "\n" + run, negatives, [], "run.trec:3: document d1 stands twice under question q1"),
        ("\n", negatives, [], "run.trec: no lines"),
        (run, negatives + "q1 d3\n", [], "negatives.tsv:3: not query-id"),
        (run, negatives + "q1\t\n", [], "negatives.tsv:3: not query-id"),
        (run, negatives + "q1\td3\t1\t2\n", [], "negatives.tsv:3: not query-id"),
        (run, negatives + "q1\td2\n", [], "negatives.tsv:3: document d2 stands twice under question q1"),
        (run, negatives, ["--first", "0"], "--first 0"),
        (run, negatives, ["--others", "-1"], "--others -1"),
    ):
        done, lines = merged(place, wrong_run, wrong_negatives, *options)
        assert done.returncode == 1 and lines is None, (words, done.stderr)
        assert done.stderr.startswith("error: ") and "(fix: " in done.stderr, (words, done.stderr)
        assert words in done.stderr, (words, done.stderr)
    absent = [sys.executable, sys.argv[1], place / "none.trec", place / "negatives.tsv", place / "hard.tsv"]
    done = subprocess.run(absent, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no none.trec" in done.stderr, done.stderr


# Twenty documents of question q1, r0 … r19, as a run.
MSA = """#!/usr/bin/env bash
echo "msa${MSA_BANK:+ bank} $*" >> "$CALLS"
while [[ $# -gt 0 ]]; do [[ $1 != --run ]] || run=$2; shift; done
for i in {0..19}; do echo "q1 Q0 r$i $i -$i msa"; done > "$run"
"""
PYTHON = """#!/usr/bin/env bash
case $1 in *dense_teacher.py) ;; *) exec "$REAL_PYTHON" "$@" ;; esac
echo "teacher ${*:2}" >> "$CALLS"
cat "$2"/corpus.jsonl* "$2/queries.jsonl" "$2/qrels.tsv" > "$3"
printf 'query-id\\tcorpus-id\\tscore\\nq1\\tr9\\t1\\nq1\\tm0\\t1\\nq1\\tm1\\t1\\nq1\\tm2\\t1\\nq1\\tm3\\t1\\n' > "$5"
"""


def test_recipe(place):
    data, calls = place / "data", place / "calls"
    for name, text in (("made/corpus.jsonl.zst", "documents\n"), ("made/queries.jsonl", "other questions\n"),
                       ("asked/corpus.jsonl", "fewer documents\n"), ("asked/queries.jsonl", "questions\n"),
                       ("asked/qrels.tsv", "gold\n"), ("model/base.gguf", "")):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(text)
    for name, text in (("msa", MSA), ("python", PYTHON)):
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    environment = {**os.environ, "MSA": str(place / "msa"), "PYTHON": str(place / "python"),
                   "REAL_PYTHON": sys.executable, "CALLS": str(calls), "MSA_BANK": str(place / "bank")}
    environment.pop("DEVICE", None)

    def recipe(*arguments, **more):
        calls.write_text("")
        return subprocess.run([sys.argv[2], *map(str, arguments)], capture_output=True, text=True, check=False,
                              env={**environment, **more})

    done = recipe(data, data / "model")
    assert done.returncode == 1 and "squad-train is missing (fix: recipes/prepare.sh" in done.stderr, done.stderr
    for name in ("squad-train", "squadshifts"):
        (data / name).mkdir()
        for kind, document in (("minilm", "t"), ("minilm.plain", "p")):
            lines = "".join(f"q1\t{document}{i}\t1\n" for i in range(6)) + f"q2\t{document}9\t1\n"
            (data / name / (kind + ".tsv")).write_text("query-id\tcorpus-id\tscore\n" + lines)
    done = recipe(data)
    assert done.returncode == 1 and "1 arguments" in done.stderr, done.stderr
    for missing, how in ((data / "none", {}), (place / "no-msa", {"MSA": str(place / "no-msa")})):
        done = recipe(data, missing if not how else data / "model", **how)
        assert done.returncode == 1 and f"{missing} is missing (fix: " in done.stderr, done.stderr
    assert not (data / "asked-all").exists()

    done = recipe(data, data / "model", DEVICE="cuda:1")
    assert done.returncode == 0, done.stderr
    everything = data / "asked-all"
    assert (everything / "minilm.safetensors").read_text() == "documents\nquestions\ngold\n"
    assert all((everything / name).is_symlink() for name in ("corpus.jsonl.zst", "queries.jsonl", "qrels.tsv"))
    sets = [everything, data / "squad-train", data / "squadshifts"]
    assert calls.read_text().splitlines() == [
        f"teacher {everything} {everything}/minilm.safetensors --negatives {everything}/minilm.tsv",
        *(f"msa eval retrieval --data {s} --model {data}/model --run {s}/router.trec --device cuda:1" for s in sets)]
    router = lambda count: "".join(f"q1\tr{i}\n" for i in range(count))
    assert (everything / "hard.tsv").read_text() == HEADER + router(10) + "q1\tm0\nq1\tm1\nq1\tm2\n"
    assert not (everything / "hard.plain.tsv").exists()
    for folder in sets[1:]:
        for name, document in (("hard.tsv", "t"), ("hard.plain.tsv", "p")):
            four = "".join(f"q1\t{document}{i}\n" for i in range(4))
            assert (folder / name).read_text() == HEADER + router(14) + four + f"q2\t{document}9\n", (folder, name)

    # What is there is not made again; what is missing is.
    (everything / "hard.tsv").write_text("kept\n")
    (data / "squadshifts" / "router.trec").unlink()
    (data / "squad-train" / "hard.plain.tsv").unlink()
    done = recipe(data, data / "model")
    assert done.returncode == 0, done.stderr
    last = data / "squadshifts"
    assert calls.read_text() == f"msa eval retrieval --data {last} --model {data}/model --run {last}/router.trec\n"
    assert (everything / "hard.tsv").read_text() == "kept\n"
    assert (data / "squad-train" / "hard.plain.tsv").exists()

    # A program that fails ends the recipe.
    (data / "squadshifts" / "router.trec").unlink()
    (place / "msa").write_text("#!/bin/sh\nexit 3\n")
    assert recipe(data, data / "model").returncode == 3


for test in (test_merging, test_refusals, test_recipe):
    with tempfile.TemporaryDirectory() as folder:
        test(pathlib.Path(folder))
print("router_negatives: ok")
