#!/usr/bin/env python3
"""`msa eval retrieval` gives pytrec_eval's figures for the same run: recall, reciprocal rank, nDCG.

Usage: compare_retrieval_metrics.py MSA_PROGRAM      exit 77 (skipped) without the package pytrec_eval
Draws small random sets: graded judgements, ties of scores, questions that the run lacks, documents left out.
"""
import json
import pathlib
import random
import subprocess
import sys
import tempfile

try:
    import pytrec_eval
except ImportError:
    print("skipped: the package pytrec_eval is not installed")
    sys.exit(77)

MEASURES = {"recall@1": "recall_1", "recall@5": "recall_5", "recall@16": "recall_16", "recall@100": "recall_100",
            "mrr": "recip_rank", "ndcg@10": "ndcg_cut_10"}


def write_lines(path, lines):
    path.write_text("\n".join(lines) + "\n")


def draw_set(folder, rng):
    """Writes a set and a run; returns judgements and run as pytrec_eval takes them."""
    documents = [f"d{i}" for i in range(rng.randint(20, 300))]
    questions = [f"q{i}" for i in range(rng.randint(2, 12))]
    write_lines(folder / "corpus.jsonl", [json.dumps({"_id": d, "text": f"text of {d}"}) for d in documents])
    write_lines(folder / "queries.jsonl", [json.dumps({"_id": q, "text": f"what is {q}?"}) for q in questions])
    judgements = {q: {d: rng.randint(1, 3) for d in rng.sample(documents, rng.randint(1, 6))} for q in questions}
    rows = [f"{q}\t{d}\t{grade}" for q, of_question in judgements.items() for d, grade in of_question.items()]
    write_lines(folder / "qrels.tsv", ["query-id\tcorpus-id\tscore", *rows])
    run, lines = {}, []
    for q in questions[:-1]:  # the last one is not answered
        ranked = rng.sample(documents, rng.randint(1, len(documents)))[:100]
        # Quarters are exact in float32; falling, so that no tie leaves the order to a tool.
        run[q] = {d: 100 - i / 4 for i, d in enumerate(ranked)}
        lines += [f"{q} Q0 {d} {i + 1} {run[q][d]} test" for i, d in enumerate(ranked)]
    left_out = [(q, rng.choice([d for d in documents if d not in judgements[q]])) for q in questions]
    write_lines(folder / "possible_positives.tsv", ["query-id\tcorpus-id\tscore", *(f"{q}\t{d}\t1" for q, d in left_out)])
    for q, d in left_out:
        run.get(q, {}).pop(d, None)
    rng.shuffle(lines)
    write_lines(folder / "run.trec", lines)
    return judgements, run


def main():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    worst = 0.0
    for _ in range(20):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            judgements, run = draw_set(folder, rng)
            output = subprocess.run([sys.argv[1], "eval", "retrieval", "--data", name, "--documents-from",
                                     str(folder / "run.trec"), "--json", "--resamples", "10"], check=True,
                                    capture_output=True, text=True).stdout
        ours = json.loads(output)["metrics"]["mean"]
        theirs = pytrec_eval.RelevanceEvaluator(judgements, {"recall.1,5,16,100", "recip_rank", "ndcg_cut.10"}).evaluate(run)
        for mine, name in MEASURES.items():
            expected = sum(theirs.get(q, {}).get(name, 0.0) for q in judgements) / len(judgements)
            worst = max(worst, abs(ours[mine]["value"] - expected))
    print(f"20 sets, largest difference {worst:.2g}")
    sys.exit(0 if worst <= 0.5e-4 + 1e-9 else 1)  # ours are printed with four decimals


if __name__ == "__main__":
    main()
