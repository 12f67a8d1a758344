"""What scripts/train/key_values.py makes holds together. Usage: key_values_test.py KEY_VALUES"""
import collections
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile

SEED = 5
rng = random.Random(SEED)
words = ["".join(rng.choice("abcdefghijklmnoprstuvw") for _ in range(rng.randrange(4, 10))) for _ in range(3000)]


def sentence():
    return " ".join(rng.choice(words) for _ in range(rng.randrange(6, 15))).capitalize() + "."


def make(folder, corpus, *options):
    subprocess.run([sys.executable, sys.argv[1], str(corpus), str(folder), *options], check=True, capture_output=True)
    lines = lambda name: (folder / name).read_text(encoding="utf-8").splitlines()
    documents = {d["_id"]: d["text"] for d in map(json.loads, lines("corpus.jsonl"))}
    questions = {q["_id"]: q for q in map(json.loads, lines("queries.jsonl"))}
    gold = dict(line.split("\t")[:2] for line in lines("qrels.tsv")[1:])
    wrong = collections.defaultdict(list)
    for line in lines("hard_negatives.tsv"):
        question, document = line.split("\t")
        wrong[question].append(document)
    return documents, questions, gold, wrong


with tempfile.TemporaryDirectory() as place:
    place = pathlib.Path(place)
    (place / "in").mkdir()
    with open(place / "in" / "corpus.jsonl", "w", encoding="utf-8") as out:
        for i in range(400):
            text = " ".join(sentence() for _ in range(12))
            out.write(json.dumps({"_id": f"d{i}", "title": "", "text": text}) + "\n")
    documents, questions, gold, wrong = make(place / "a", place / "in", "--documents", "300", "--seed", "7")
    assert len(documents) == 300 and set(gold) == set(questions) and len(questions) > 400, (len(documents), len(questions))
    for q, question in questions.items():
        assert question["answers"][0] in documents[gold[q]], (q, question, documents[gold[q]], SEED)
        assert gold[q] not in wrong[q] and all(d in documents for d in wrong[q]), q
    assert sum(bool(w) for w in wrong.values()) > 0.9 * len(questions)
    values = [q["answers"][0] for q in questions.values()]
    codes = [v for v in values if re.fullmatch(r"(?=.*\d)(?=.*[A-Za-z])[0-9A-Za-z-]*", v)]
    assert 0.4 < len(codes) / len(values) < 0.6, (len(codes), len(values), SEED)
    for form in (r"[0-9a-f]{24,32}", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", r"[0-9A-Z]{3}-[0-9A-Z]{4}", r"\d{9,16}",
                 r"\d+\.\d+", r"\d{1,2} [A-Z][a-z]+ \d{4}", r"\d{1,2}:\d\d", r"[$€£][\d,]+\.\d\d",
                 r"\w+\.\w+@\w+\.\w+"):
        assert any(re.fullmatch(form, v) for v in values), (form, SEED)
    assert len({q["text"] for q in questions.values()}) > 0.99 * len(questions)
    assert make(place / "b", place / "in", "--documents", "300", "--seed", "7") == (documents, questions, gold, wrong)
    assert make(place / "c", place / "in", "--documents", "300", "--seed", "8")[0] != documents
    refused = subprocess.run([sys.executable, sys.argv[1], str(place / "in"), str(place / "d"), "--documents", "500"],
                             capture_output=True, text=True)
    assert refused.returncode == 1 and "fix: a smaller --documents" in refused.stderr, refused
