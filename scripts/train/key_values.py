#!/usr/bin/env python3
"""Questions about facts that no model can know, hidden in the passages of a corpus: "The locker number of velvet-harbor
is 40917." A training set (BEIR layout) from which routing learns to match names exactly, and reading to copy what it
sees.

usage: key_values.py CORPUS OUTPUT [--documents N] [--seed N]

CORPUS: a BEIR folder with long enough texts. A document of OUTPUT holds a passage of it with one to three facts, each
about a name of its own; some names have two facts in different documents. hard_negatives.tsv lists documents with
another fact of the same name or the same kind. Half of the values are codes of letters and digits. Wordings, kinds and
forms of names are this file's own: benchmarks of this kind ("needles") have theirs and stay unseen.
"""
import argparse
import collections
import json
import pathlib
import random
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from beir_files import read_lines, write_lines
from introductions import MONTHS

KINDS = ("access code", "locker number", "phone extension", "room", "seat", "price", "serial number", "account number",
         "deadline", "budget", "flight number", "shelf mark", "gate code", "invoice total", "passphrase", "call sign",
         "tracking number", "score", "order number", "licence plate", "colour", "contact person", "port", "batch number")
STATEMENTS = ("The {kind} of {name} is {value}.", "The {kind} for {name} is {value}.", "{name} has {value} as its {kind}.",
              "Note that the {kind} of {name} was set to {value}.", "For {name}, the {kind} is {value}.",
              "{name}: {kind} {value}.", "We agreed on {value} as the {kind} of {name}.",
              "According to the list, {value} is the {kind} for {name}.", "{kind} of {name}: {value}")
QUESTIONS = ("What is the {kind} of {name}?", "What is the {kind} for {name}?", "Which {kind} does {name} have?",
             "Tell me the {kind} of {name}.", "I need the {kind} for {name}.", "{name}: which {kind}?",
             "What {kind} was given for {name}?", "{kind} of {name}?")
DIGITS, HEXADECIMAL, LETTERS = "0123456789", "0123456789abcdef", "ABCDEFGHKLMNPRSTUVWXYZ"
# Makers of values with their shares in percent. Codes of letters and digits, which are hard to copy, are half of them.
VALUES = (("hexadecimal", 16), ("uuid", 12), ("serial", 10), ("mixed", 8), ("short_code", 4),
          ("number", 15), ("long_number", 7), ("decimal", 4), ("date", 5), ("time", 3), ("price", 3), ("mail", 4),
          ("word", 4), ("two_words", 5))
SECOND_FACT = 0.25  # share of the names that have one
LEAST_WORDS, MOST_WORDS = 30, 170  # of a passage


def words_of(documents):
    """Lower-case words that occur in several passages, neither very common nor rare."""
    counts = collections.Counter()
    for d in documents:
        counts.update(set(re.findall(r"\b[a-z]{4,10}\b", d["text"])))
    return sorted(w for w, n in counts.items() if 5 <= n <= len(documents) // 50)


class Maker:
    def __init__(self, words, rng):
        self.words, self.rng, self.names = words, rng, set()

    def word(self):
        return self.rng.choice(self.words)

    def name(self):
        while True:
            form = self.rng.randrange(6)
            a, b = self.word(), self.word()
            made = (f"{a}-{b}", f"{a} {b}", f"{a.capitalize()} {b.capitalize()}", f"project {a}",
                    f"{a}{self.rng.randrange(10, 1000)}", f"{a.capitalize()}-{self.rng.randrange(2, 100)}")[form]
            if made not in self.names:
                self.names.add(made)
                return made

    def value(self):
        forms, shares = zip(*VALUES)
        return getattr(self, self.rng.choices(forms, shares)[0])()

    def drawn(self, characters, count):
        return "".join(self.rng.choices(characters, k=count))

    def number(self):
        digits = self.rng.randrange(2, 9)
        return str(self.rng.randrange(10 ** (digits - 1), 10**digits))

    def long_number(self):
        return self.rng.choice(DIGITS[1:]) + self.drawn(DIGITS, self.rng.randrange(8, 16))

    def decimal(self):
        return f"{self.number()}.{self.drawn(DIGITS, self.rng.randrange(2, 7))}"

    def hexadecimal(self):
        return self.drawn(HEXADECIMAL, self.rng.randrange(8, 33))

    def uuid(self):
        groups = self.rng.choice(((8, 4, 4, 4, 12), (8, 4, 4), (6, 6), (4, 4, 4, 4)))
        return "-".join(self.drawn(HEXADECIMAL, n) for n in groups)

    def serial(self):
        groups = self.rng.choice(((3, 4), (2, 4, 3), (5, 5), (4, 4, 4)))
        return "-".join(self.drawn(LETTERS + DIGITS[2:], n) for n in groups)

    def short_code(self):
        return f"{self.drawn(LETTERS, 2)}-{self.rng.randrange(10, 10000)}"

    def mixed(self):
        return self.drawn(LETTERS + LETTERS.lower() + DIGITS, self.rng.randrange(8, 17))

    def date(self):
        day, month, year = self.rng.randrange(1, 29), self.rng.randrange(12), self.rng.randrange(1950, 2060)
        return self.rng.choice((f"{day} {MONTHS[month]} {year}", f"{MONTHS[month]} {day}, {year}",
                                f"{year}-{month + 1:02}-{day:02}"))

    def time(self):
        return f"{self.rng.randrange(24)}:{self.rng.randrange(60):02}"

    def price(self):
        return f"{self.rng.choice('$€£')}{self.rng.randrange(1, 20000):,}.{self.rng.randrange(100):02}"

    def mail(self):
        return f"{self.word()}.{self.word()}@{self.word()}.{self.rng.choice(('org', 'net', 'example'))}"

    def two_words(self):
        return f"{self.word()} {self.word()}"


def hide(text, statements, rng):
    """The passage, cut at a sentence, with the statements between its sentences."""
    sentences = re.split(r"(?<=[.!?]) ", text)
    kept, most = [], rng.randrange(LEAST_WORDS, MOST_WORDS)
    for s in sentences:
        if kept and sum(len(k.split()) for k in kept) + len(s.split()) > most:
            break
        kept.append(s)
    for statement in statements:
        kept.insert(rng.randrange(len(kept) + 1), statement)
    return " ".join(kept)


def main():
    parser = argparse.ArgumentParser(description="Facts hidden in passages, as training questions")
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--documents", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    passages = [d for d in read_lines(options.corpus, "corpus.jsonl") if len(d["text"].split()) >= LEAST_WORDS]
    if len(passages) < options.documents:
        sys.exit(f"error: {options.corpus} has {len(passages)} passages of {LEAST_WORDS} words, {options.documents} are "
                 "asked for (fix: a smaller --documents)")
    rng = random.Random(options.seed)
    passages = rng.sample(passages, options.documents)
    maker = Maker(words_of(passages), rng)
    texts = [[] for _ in passages]
    facts = []  # (document, name, kind, value)

    def add(document, name, kind):
        value = maker.value()
        texts[document].append(rng.choice(STATEMENTS).format(name=name, kind=kind, value=value))
        facts.append((document, name, kind, value))

    for document in range(len(passages)):
        for _ in range(rng.choice((1, 1, 2, 3))):
            name, kind = maker.name(), rng.choice(KINDS)
            add(document, name, kind)
            if rng.random() < SECOND_FACT:
                add(rng.randrange(len(passages)), name, rng.choice([k for k in KINDS if k != kind]))
    by_name, by_kind = collections.defaultdict(list), collections.defaultdict(list)
    for document, name, kind, _ in facts:
        by_name[name].append(document)
        by_kind[kind].append(document)

    options.output.mkdir(parents=True, exist_ok=True)
    write_lines(options.output, "corpus.jsonl",
                ({"_id": f"k{i}", "title": "", "text": hide(passage["text"], statements, rng)}
                 for i, (passage, statements) in enumerate(zip(passages, texts))))
    write = lambda name: open(options.output / name, "w", encoding="utf-8")
    with write("queries.jsonl") as questions, write("qrels.tsv") as gold, write("hard_negatives.tsv") as wrong:
        gold.write("query-id\tcorpus-id\tscore\n")
        for i, (document, name, kind, value) in enumerate(facts):
            text = rng.choice(QUESTIONS).format(name=name, kind=kind)
            questions.write(json.dumps({"_id": f"f{i}", "text": text, "answers": [value]}, ensure_ascii=False) + "\n")
            gold.write(f"f{i}\tk{document}\t1\n")
            near = [d for d in by_name[name] + rng.sample(by_kind[kind], min(4, len(by_kind[kind]))) if d != document]
            for d in dict.fromkeys(near):
                wrong.write(f"f{i}\tk{d}\n")
    print(f"{len(passages)} documents, {len(facts)} questions in {options.output}")


if __name__ == "__main__":
    main()
