#!/usr/bin/env python3
"""Questions about passages by a model that learnt from people's questions how to ask.

usage: ask_questions.py CORPUS OUTPUT --model FILE.gguf|DIR --learn SET[=TYPE] … [--learn-search SET[=TYPE] …]
                        [--held-out SET …] [--documents 60000] [--each 2] [--steps 300] [--seed 1] [--part I/N]

A small language model learns on the sets to write an answer and a question to it below a passage, and to answer
(question_model.py); --learn-search: questions as typed into a search box. Then it asks about documents of CORPUS. A
question stays if the same model, asked, gives that very answer, if the answer is in the text and not in the question,
and if a sentence encoder (all-MiniLM-L6-v2) finds the document among its first --rank of all that were drawn: PAQ's and
GPL's ways of keeping questions (arXiv 2102.07033, 2112.07577). --held-out: documents titled like a gold document of
these sets are not asked about, and no question of theirs is learnt or kept. --part 2/4: the second quarter of the
documents, for several GPUs; the parts' files are joined with cat. Needs torch, transformers, gguf and a GPU.
"""
import argparse
import pathlib
import random
import re
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from beir_files import full_text, read_gold, read_lines, write_lines

LEAST_WORDS = 30        # of a document's text
MOST_ANSWER_WORDS = 8
LEAST_QUESTION_WORDS = 4
SEARCH_REPEATS = 8      # sets of searches are small
SEARCH_SHARE = 0.5      # of the documents


def key(text):
    """Letters and digits alone: for comparing questions and titles."""
    return re.sub(r"\W+", " ", text).strip().casefold()


def examples_of(spec, style, forbidden):
    """(text, style, question, answer) of a set, SET or SET=TYPE; one for each question with its first answer."""
    name, _, type_ = spec.partition("=")
    folder = pathlib.Path(name)
    documents = {d["_id"]: d for d in read_lines(folder, "corpus.jsonl")}
    gold = read_gold(folder)
    out = []
    for q in read_lines(folder, "queries.jsonl"):
        if (type_ and q.get("type") != type_) or not q.get("answers") or q["_id"] not in gold:
            continue
        if key(q["text"]) in forbidden:
            continue
        text = full_text(documents[gold[q["_id"]][0]])
        if q["answers"][0] in text:
            out.append((text, style, q["text"], q["answers"][0]))
    if not out:
        sys.exit(f"error: {spec} has no question with an answer in its document")
    return out


def held_out(folders):
    """Keys of the questions of these sets, and of their gold documents' titles."""
    questions, titles = set(), set()
    for folder in folders:
        gold = {d for documents in read_gold(folder).values() for d in documents}
        questions |= {key(q["text"]) for q in read_lines(folder, "queries.jsonl")}
        titles |= {key(d.get("title") or "") for d in read_lines(folder, "corpus.jsonl") if d["_id"] in gold}
    return questions, titles - {""}


def parse(written, text, forbidden):
    """(question, answer) of what the model wrote about the text, or None where it cannot be one."""
    answer, mark, question = written.partition("\nQuestion: ")
    answer, question = answer.strip(), question.strip()
    if not mark or not answer or "\n" in question or len(question.split()) < LEAST_QUESTION_WORDS:
        return None
    if len(answer.split()) > MOST_ANSWER_WORDS or answer not in text:
        return None
    if f" {key(answer)} " in f" {key(question)} " or key(question) in forbidden:
        return None
    return question, answer


def ranks(encoder, texts, questions, own):
    """How many texts the encoder finds closer to each question than its own."""
    import torch
    keys, queries = encoder.encode(texts), encoder.encode(questions)
    out = []
    for begin in range(0, len(questions), 1024):
        scores = queries[begin:begin + 1024] @ keys.T
        mine = scores.gather(1, torch.tensor(own[begin:begin + 1024], device=scores.device)[:, None])
        out += (scores > mine).sum(1).tolist()
    return out


def write(folder, documents, kept, part):
    """kept: (document's index, style, question, answer)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder, "corpus.jsonl", documents)
    write_lines(folder, "queries.jsonl", ({"_id": f"a{part}-{i}", "text": question, "answers": [answer], "type": style}
                                          for i, (_, style, question, answer) in enumerate(kept)))
    header = ["query-id\tcorpus-id\tscore\n"] if part == 1 else []
    gold = [f"a{part}-{i}\t{documents[document]['_id']}\t1\n" for i, (document, *_) in enumerate(kept)]
    (folder / "qrels.tsv").write_text("".join(header + gold), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--learn", action="append", required=True)
    parser.add_argument("--learn-search", action="append", default=[])
    parser.add_argument("--held-out", action="append", type=pathlib.Path, default=[])
    parser.add_argument("--documents", type=int, default=60000)
    parser.add_argument("--each", type=int, default=2, help="questions asked about a document")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rank", type=int, default=5)
    parser.add_argument("--encoder", type=pathlib.Path, help="folder of another sentence encoder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if not re.fullmatch(r"[1-9]\d*/[1-9]\d*", options.part):
        sys.exit(f"error: --part {options.part} is not I/N, as 2/4")
    part, parts = (int(n) for n in options.part.split("/"))
    if part > parts:
        sys.exit(f"error: --part {options.part}: there are {parts} parts")
    began = time.time()
    report = lambda text: print(f"{time.time() - began:6.0f} s  {text}", file=sys.stderr, flush=True)

    forbidden, titles = held_out(options.held_out)
    passages = [d for d in read_lines(options.corpus, "corpus.jsonl")
                if len(d["text"].split()) >= LEAST_WORDS and key(d.get("title") or "") not in titles]
    if len(passages) < options.documents:
        sys.exit(f"error: {options.corpus} has {len(passages)} documents of {LEAST_WORDS} words that are not held out, "
                 f"{options.documents} are asked for (fix: a smaller --documents)")
    rng = random.Random(options.seed)
    passages = rng.sample(passages, options.documents)[part - 1::parts]
    examples = [e for spec in options.learn for e in examples_of(spec, "question", forbidden)]
    report(f"{len(examples)} questions to learn from")
    for spec in options.learn_search:
        examples += examples_of(spec, "search", forbidden) * SEARCH_REPEATS

    from dense_teacher import Encoder, package_model
    from question_model import QuestionModel
    model = QuestionModel(options.model, options.device, options.seed + part)
    model.learn(examples, options.steps, report)

    asked = [d for d in range(len(passages)) for _ in range(options.each)]
    texts = [full_text(passages[d]) for d in asked]
    styles = ["search" if options.learn_search and rng.random() < SEARCH_SHARE else "question" for _ in asked]
    written = model.ask(texts, styles, report)
    found, seen = [], set()
    for document, style, text, line in zip(asked, styles, texts, written):
        pair = parse(line, text, forbidden)
        if pair and key(pair[0]) not in seen:
            seen.add(key(pair[0]))
            found.append((document, style, *pair))
    report(f"{len(found)} questions with an answer in the text")
    same = model.would_answer([full_text(passages[d]) for d, _, _, _ in found], [q for _, _, q, _ in found],
                              [a for _, _, _, a in found])
    found = [f for f, s in zip(found, same) if s]
    report(f"{len(found)} that the model answers alike")
    rank = ranks(Encoder(options.encoder or package_model(), options.device), [full_text(p) for p in passages],
                 [q for _, _, q, _ in found], [d for d, _, _, _ in found])
    kept = [f for f, r in zip(found, rank) if r < options.rank]
    write(options.output, passages, kept, part)
    report(f"{len(passages)} documents, {len(kept)} questions in {options.output}")


if __name__ == "__main__":
    main()
