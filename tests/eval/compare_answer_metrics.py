#!/usr/bin/env python3
"""Exact match and F1 equal those of SQuAD's official script (evaluate-v1.1.py) on passages of the demo corpus.

Usage: compare_answer_metrics.py ANSWER_METRICS_DUMP CORPUS.jsonl.zst     exit 77 (skipped) without the program zstd
"""
import json
import random
import re
import shutil
import string
import subprocess
import sys
from collections import Counter


# The four functions below are those of the official script.
def normalize_answer(s):
    def remove_articles(text):
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text):
        return " ".join(text.split())

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    def lower(text):
        return text.lower()

    return white_space_fix(remove_articles(remove_punc(lower(s))))


def f1_score(prediction, ground_truth):
    prediction_tokens = normalize_answer(prediction).split()
    ground_truth_tokens = normalize_answer(ground_truth).split()
    common = Counter(prediction_tokens) & Counter(ground_truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


def exact_match_score(prediction, ground_truth):
    return normalize_answer(prediction) == normalize_answer(ground_truth)


def metric_max_over_ground_truths(metric_fn, prediction, ground_truths):
    return max(metric_fn(prediction, truth) for truth in ground_truths)


HARD = ["The  A an THE", "", "the", "A.B.C.", "l'Équipe", "ΟΔΟΣ", "İstanbul", "a-an", "rock'n'roll the_end", "x–the–y",
        "Ⅷ the Ⅷ", "naïve the", "nai\u0308ve the\u0301", "a\u00a0b\u3000the c", "½ an hour", "١٢٣ the", "the€", "ẞ the",
        "\x1cthe\x1fa", "the\u200bend", "中文the", "“the” end", "a²", "ǅ"]


def sample(rng, passages):
    words = rng.choice(passages).split()

    def span():
        begin = rng.randrange(len(words))
        return " ".join(words[begin:begin + rng.randint(1, 8)])

    pick = lambda: rng.choice([span(), span(), rng.choice(HARD), span() + " " + rng.choice(HARD)])
    answers = [pick() for _ in range(rng.randint(1, 3))]
    prediction = rng.choice([pick(), answers[0], "The " + answers[-1].upper() + "!", answers[0] + " " + span()])
    return {"prediction": prediction, "answers": answers}


def main():
    if shutil.which("zstd") is None:
        print("skipped: the program zstd is not installed")
        sys.exit(77)
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    corpus = subprocess.run(["zstd", "-dc", sys.argv[2]], check=True, capture_output=True, text=True).stdout
    passages = [json.loads(line)["text"] for line in corpus.splitlines()]
    samples = [{"prediction": h, "answers": HARD} for h in HARD] + [sample(rng, passages) for _ in range(5000)]
    lines = "".join(json.dumps(s) + "\n" for s in samples)
    output = subprocess.run([sys.argv[1]], input=lines, check=True, capture_output=True, text=True).stdout.split("\n")
    wrong = 0
    for s, line in zip(samples, output, strict=False):
        ours = json.loads(line)
        theirs = {"normalised": normalize_answer(s["prediction"]),
                  "exact_match": float(metric_max_over_ground_truths(exact_match_score, s["prediction"], s["answers"])),
                  "f1": float(metric_max_over_ground_truths(f1_score, s["prediction"], s["answers"]))}
        if ours["normalised"] != theirs["normalised"] or ours["exact_match"] != theirs["exact_match"] or \
                abs(ours["f1"] - theirs["f1"]) > 1e-9:
            wrong += 1
            print(s, ours, theirs)
    print(f"{len(samples)} answers, {wrong} differ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
