#!/usr/bin/env python3
"""Hard negatives of a router: the documents that it ranks first, then some that a dense retriever ranks first.

usage: router_negatives.py RUN.trec NEGATIVES.tsv OUTPUT.tsv [--first 10] [--others 3]

RUN is what `msa eval retrieval --run` writes, NEGATIVES what dense_teacher.py does. OUTPUT, lines of query-id and
corpus-id, is the recipe's sets.hard_negatives: of each question the best --first documents of RUN, then the first
--others of NEGATIVES that are not among them; of a question that RUN lacks, all of NEGATIVES. Gold documents stay in:
the trainer passes over them.
"""
import argparse
import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from beir_files import read_text

HEADER = "query-id\tcorpus-id"


def numbered_lines(path):
    """'FILE:LINE' and line, of a plain or .zst file."""
    lines = read_text(path.parent, path.name).split("\n")
    return [(f"{path}:{i}", line.rstrip("\r")) for i, line in enumerate(lines, 1) if line.strip()]


def refuse_repetition(documents, document, question, where):
    if document in documents:
        sys.exit(f"error: {where}: document {document} stands twice under question {question} (fix: keep one line)")


def number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def read_run(path, first):
    """Question id → its best documents, best first; of equal scores in the file's order."""
    scores = {}
    for where, line in numbered_lines(path):
        fields = line.split()
        if len(fields) != 6 or not math.isfinite(number(fields[4])):
            sys.exit(f"error: {where}: not query-id Q0 corpus-id rank score tag: {line[:80]} (fix: give a TREC run)")
        of_question = scores.setdefault(fields[0], {})
        refuse_repetition(of_question, fields[2], fields[0], where)
        of_question[fields[2]] = float(fields[4])
    if not scores:
        sys.exit(f"error: {path}: no lines in it (fix: write it with msa eval retrieval --run)")
    return {q: sorted(found, key=lambda d: -found[d])[:first] for q, found in scores.items()}


def read_negatives(path):
    """Question id → its documents, in the file's order."""
    negatives = {}
    for where, line in numbered_lines(path):
        fields = line.split("\t")
        if len(fields) not in (2, 3) or not all(fields):
            sys.exit(f"error: {where}: not query-id, corpus-id and perhaps a score, by tabs: {line[:80]} "
                     "(fix: write it with dense_teacher.py --negatives)")
        if line.startswith(HEADER):
            continue
        of_question = negatives.setdefault(fields[0], [])
        refuse_repetition(of_question, fields[1], fields[0], where)
        of_question.append(fields[1])
    return negatives


def merge(ranked, negatives, others):
    """Question id → documents: the questions of negatives, then those that ranked alone has."""
    merged = {}
    for question in [*negatives, *(q for q in ranked if q not in negatives)]:
        best = ranked.get(question, [])
        more = [d for d in negatives.get(question, []) if d not in best]
        merged[question] = best + (more[:others] if best else more)
    return merged


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("negatives", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--first", type=int, default=10, help="documents of the run, a question")
    parser.add_argument("--others", type=int, default=3, help="documents of the negatives beside them")
    options = parser.parse_args()
    for name, least in (("first", 1), ("others", 0)):
        if getattr(options, name) < least:
            sys.exit(f"error: --{name} {getattr(options, name)} (fix: give {least} or more)")
    ranked = read_run(options.run, options.first)
    merged = merge(ranked, read_negatives(options.negatives), options.others)
    lines = [f"{question}\t{document}\n" for question, documents in merged.items() for document in documents]
    options.output.write_text(HEADER + "\n" + "".join(lines), encoding="utf-8")
    print(f"{options.output}: {len(lines)} negatives of {len(merged)} questions, {len(ranked)} of them in the run",
          file=sys.stderr)


if __name__ == "__main__":
    main()
