#!/usr/bin/env python3
"""Records what the Python package bm25s finds in a small corpus. Usage: make_bm25_golden.py > bm25_golden.inc

Needs bm25s 0.3 and PyStemmer. The texts are made here, of words that stem, stop and fold case.
"""
import random

import bm25s
import Stemmer

WORDS = """the of a running runs ran runner river rivers Étage ÉTAGE naïve film films filmed director directed
directing in 1998 2004 city cities was is organisation organise organised national nations x _id town""".split()


def text(random_words, n):
    return " ".join(random_words.choice(WORDS) for _ in range(n))


def c_string(value):
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def hits_of(corpus, queries, stem):
    stemmer = Stemmer.Stemmer("english") if stem else None
    tokenise = lambda texts: bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index(tokenise(corpus), show_progress=False)
    for query in queries:
        # One query at a time and its own words in order: a word given twice counts twice.
        words = bm25s.tokenize([query], stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)[0]
        words = [w for w in words if w in index.vocab_dict]
        scores = index.get_scores(words) if words else [0.0] * len(corpus)
        order = sorted(range(len(corpus)), key=lambda i: (-scores[i], i))[:5]
        yield [(i, float(scores[i])) for i in order if scores[i] > 0]


def main():
    words = random.Random(11)
    corpus = [text(words, words.randint(3, 24)) for _ in range(24)] + ["", "the of a"]
    queries = ["the runner directed films", "organising naïve nations", "city city river", "étage 1998", "of the"]
    print(f"// Made by make_bm25_golden.py with bm25s {bm25s.__version__}.")
    print("const std::vector<std::string> kCorpus = {")
    print("".join(f"    {c_string(t)},\n" for t in corpus) + "};")
    print("const std::vector<std::string> kQueries = {" + ", ".join(map(c_string, queries)) + "};")
    for name, stem in (("kStemmed", True), ("kPlain", False)):
        print(f"const std::vector<std::vector<Bm25Hit>> {name} = {{")
        for hits in hits_of(corpus, queries, stem):
            print("    {" + ", ".join(f"{{{i}, {score:.7g}f}}" for i, score in hits) + "},")
        print("};")


if __name__ == "__main__":
    main()
