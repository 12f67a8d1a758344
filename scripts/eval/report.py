#!/usr/bin/env python3
"""Makes docs/evidence.md and its pictures of the records that measure.py kept.

usage: report.py RECORDS PAGE.md [--figures FOLDER]     writes the page; with --figures pictures too (needs matplotlib)
       report.py RECORDS PAGE.md --check                exit 1 where the page is not what the records give
RECORDS/notes.md goes into the page as it is.
"""
import argparse
import json
import pathlib
import sys

import report_figures
from report_figures import size_name

RETRIEVERS = {"retrieval": "routing", "retrieval-embedding": "routing, questions attend to nothing",
              "retrieval-bm25": "BM25", "retrieval-dense": "MiniLM-L6", "retrieval-rrf": "BM25 + MiniLM-L6, fused"}
RETRIEVAL_COLUMNS = ["recall@1", "recall@5", "recall@16", "recall@100", "mrr", "ndcg@10"]
QA_MODES = {"none": "no documents (lower bound)", "system": "the memory: routed, ids written, fetched",
            "gold": "gold documents given (upper bound)", "whole": "the whole corpus given"}
# Records with these rows, the later before the earlier: qa-given is a run of which rows stand that qa lacks.
QA_RECORDS = ["qa-given", "qa", "qa-whole"]
BASELINES = {"bm25": "BM25", "dense": "MiniLM-L6", "rrf": "both, fused"}
QA_COLUMNS = {"exact_match": "exact", "f1": "F1", "answer_in_text": "answer in text",
              "answer_in_documents": "answer in documents", "documents_recall": "gold read"}
QA_PLAIN_COLUMNS = {"documents": ("documents", 1), "prompt_tokens": ("prompt tokens", 0), "ms": ("ms", 0)}


def fail(message):
    sys.exit(f"error: {message}")


def load_records(folder):
    """{name without .json: record}, in order of the names; all of one model."""
    records = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    if not records:
        fail(f"no records in {folder}; scripts/eval/run_set.sh makes them")
    models = {r["report"]["model_fingerprint"]: n for n, r in records.items() if "model_fingerprint" in r["report"]}
    if len(models) > 1:
        fail(f"records of different models: {models}; keep those of one model in a folder")
    return records


def number(value, digits=2):
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") and digits > 1 else text


def cell(estimate):
    """.81 [.79 .83]"""
    low, high = estimate["interval"]
    return f"{number(estimate['value'])} [{number(low)} {number(high)}]"


def table(header, rows):
    """Markdown; the first column holds words, the others figures."""
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return [line(header), "|---|" + "--:|" * (len(header) - 1), *(line(r) for r in rows), ""]


def retrieval_section(of_set):
    rows = []
    for what, label in RETRIEVERS.items():
        if what not in of_set:
            continue
        metrics = of_set[what]["report"]["metrics"]
        rows.append([label, *(cell(metrics["mean"][c]) for c in RETRIEVAL_COLUMNS)])
        if what == "retrieval":
            layer = max(metrics["layers"], key=lambda name: metrics["layers"][name]["recall@16"]["value"])
            best = metrics["layers"][layer]
            rows.append([f"layer {layer}, the best at 16", *(cell(best[c]) for c in RETRIEVAL_COLUMNS)])
            union = metrics["union"]
            cells = [cell(union[c]) if c in union else "" for c in RETRIEVAL_COLUMNS]
            rows.append(["best k of each layer, united", *cells])
    if not rows:
        return []
    counts = sorted({r["report"]["questions"] for w, r in of_set.items() if w in RETRIEVERS})
    return ["### Retrieval", "", f"{' or '.join(map(str, counts))} questions.", "",
            *table(["", *RETRIEVAL_COLUMNS], rows)]


def qa_row(label, metrics):
    plain = [number(metrics[c]["value"], digits) for c, (_, digits) in QA_PLAIN_COLUMNS.items()]
    return [label, *(cell(metrics[c]) for c in QA_COLUMNS), *plain]


def read_order(what):
    read = what.rsplit("-", 1)[1]
    return list(BASELINES).index(what.split("-")[1]), float("inf") if read == "fit" else int(read)


def qa_section(of_set):
    rows = []
    modes = {m: v for w in QA_RECORDS if w in of_set for m, v in of_set[w]["report"]["metrics"].items()}
    rows += [qa_row(label, modes[mode]) for mode, label in QA_MODES.items() if mode in modes]
    for what in sorted((w for w in of_set if w.startswith("qa-") and w not in QA_RECORDS), key=read_order):
        _, name, read = what.split("-")
        label = f"{BASELINES[name]}, {'as many as fit' if read == 'fit' else read} read"
        rows.append(qa_row(label, of_set[what]["report"]["metrics"]["run"]))
    if not rows:
        return []
    counts = sorted({r["report"]["questions"] for w, r in of_set.items() if w.startswith("qa")})
    header = ["", *QA_COLUMNS.values(), *(name for name, _ in QA_PLAIN_COLUMNS.values())]
    return ["### Answers", "", f"{' or '.join(map(str, counts))} questions, one model and one prompt in all rows.", "",
            *table(header, rows)]


def needle_section(name, record):
    report = record["report"]
    header = ["task", "tokens", "documents", "samples", "score", "its document fetched", "its document routed"]
    shown = ("score", "documents_recall", "routed_recall")
    rows = [[r["task"], size_name(r["tokens"]), str(r["bank"]["documents"]), str(r["samples"]),
             *(cell(r["metrics"][c]) for c in shown)] for r in report["results"]]
    lines = ["## Needles", "", *table(header, rows)]
    if any("depths" in r for r in report["results"]):
        lines += ["Tasks with one needle, by its depth in the haystack and the haystack's length:", "",
                  f"![share of the needles routed and answered, by depth and length](img/{name}.svg)", ""]
    return lines


def scale_section(name, record):
    report = record["report"]
    header = ["tokens", "documents", "gold / set / other / synthetic tokens", "recall@1", "recall@16",
              "recall@16, relative", "routing ms", "up to the scores ms", "bank MB"]
    rows, answers = [], []
    origins, graded = ("gold", "set", "other_corpora", "synthetic"), ("exact_match", "f1", "documents_recall")
    for p in report["points"]:
        of = p["tokens_of"]
        rows.append([size_name(p["size"]), str(p["documents"]),
                     " / ".join(size_name(round(of.get(o, 0), -2)) for o in origins),
                     cell(p["metrics"]["recall@1"]), cell(p["metrics"]["recall@16"]), cell(p["relative"]["recall@16"]),
                     number(p["routing_ms"]), number(p["question_ms"], 1), number(p["bank_bytes"] / 1e6, 1)])
        if "answers" in p:
            answers.append([size_name(p["size"]), *(cell(p["answers"][c]) for c in graded),
                            cell(p["answers_relative"]["f1"])])
    lines = [f"## Scale: {report['data']}", "",
             f"{report['questions']} questions of {report['data']}, the same at every size; real distractors: the rest of the "
             f"set, then {', '.join(report['distractors']) or 'none'}.", "",
             *table(header, rows), f"![quality and cost over the size of the bank](img/{name}.svg)", ""]
    if answers:
        lines += table(["tokens", "exact", "F1", "gold fetched", "F1, relative"], answers)
    return lines


def command_lines(records):
    rows = [[f"`{r['command']}`", r["commit"], r["date"], number(r["load_before"], 1)] for r in records]
    return ["<details><summary>commands, commits, dates, load of the machine before</summary>", "",
            *table(["command", "commit", "date", "load"], rows), "</details>", ""]


def page(records, notes, folder="evidence"):
    reports = [r["report"] for r in records.values()]
    fingerprint = next((r["model_fingerprint"] for r in reports if "model_fingerprint" in r), "none")
    model = next((r["model"] for r in reports if "model" in r), "none")
    same = lambda key: ", ".join(sorted({str(r[key]) for r in reports}))
    lines = ["# Evidence", "",
             f"Made by `scripts/report.sh` from the records in [{folder}/]({folder}); terms and commands:",
             "[evaluation.md](evaluation.md). Each figure stands with its 95 % interval (percentile bootstrap over questions).",
             "",
             "| | |", "|---|---|", f"| model | {model}, fingerprint `{fingerprint}` |",
             f"| machine | {same('machine')} |", f"| seed, bootstrap samples | {same('seed')}; {same('resamples')} |", "", notes.strip(), ""]
    sets = {}
    for name, record in records.items():
        set_name, _, what = name.partition(".")
        if record["report"]["task"] in ("retrieval", "qa"):
            sets.setdefault(set_name, {})[what] = record
    for set_name, of_set in sets.items():
        report = next(iter(of_set.values()))["report"]
        bank = next((r["report"]["bank"] for r in of_set.values() if "bank" in r["report"]), None)
        tokens = f", {bank['tokens']:,} tokens in {bank['chunks']:,} chunks" if bank else ""
        lines += [f"## {set_name}", "",
                  f"{report['documents']:,} documents{tokens}; {report['questions_in_set']:,} questions in the set.", "",
                  *retrieval_section(of_set), *qa_section(of_set), *command_lines(of_set.values())]
    for task, section in (("scale", scale_section), ("niah", needle_section)):
        for name, record in records.items():
            if record["report"]["task"] == task:
                lines += [*section(name, record), *command_lines([record])]
    return "\n".join(lines).rstrip() + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=pathlib.Path)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--figures", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    records = load_records(options.records)
    notes = options.records / "notes.md"
    text = page(records, notes.read_text(encoding="utf-8") if notes.exists() else "",
                options.records.name)
    if options.check:
        same = options.page.exists() and options.page.read_text(encoding="utf-8") == text
        print(f"{options.page} {'is' if same else 'is not'} what {len(records)} records give")
        sys.exit(0 if same else 1)
    options.page.write_text(text, encoding="utf-8")
    print(options.page)
    if options.figures:
        for path in report_figures.draw(records, options.figures):
            print(path)


if __name__ == "__main__":
    main()
