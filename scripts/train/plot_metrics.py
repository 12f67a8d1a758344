#!/usr/bin/env python3
"""Draws metrics.jsonl of a training run: losses, recall in the pool and over whole banks, tokens per second.

usage: plot_metrics.py METRICS.jsonl [OUTPUT.svg]      needs matplotlib
"""
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def column(lines, key):
    points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    return [p[0] for p in points], [p[1] for p in points]


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    source = pathlib.Path(sys.argv[1])
    target = sys.argv[2] if len(sys.argv) == 3 else str(source.with_suffix(".svg"))
    lines = [json.loads(line) for line in source.read_text().splitlines() if line.strip()]
    steps = [line for line in lines if "loss" in line]
    banks = [line for line in lines if "set" in line]
    if not steps:
        sys.exit(f"error: {source} holds no training step")
    figure, (losses, recall, speed) = plt.subplots(3, 1, figsize=(8, 9), sharex=True, constrained_layout=True)
    for key, label in (("loss", "loss"), ("lm_loss", "language model"), ("routing_loss", "routing")):
        losses.plot(*column(steps, key), label=label)
    losses.set_ylabel("loss")
    losses.legend()
    recall.plot(*column(steps, "pool_recall_1"), color="0.7", label="in the pool @1")
    for name in sorted({line["set"] for line in banks}):
        mine = [line for line in banks if line["set"] == name]
        recall.plot(*column(mine, "recall_16"), marker="o", label=f"whole bank {name} @16")
        recall.plot(*column(mine, "recall_1"), marker=".", linestyle="--", label=f"whole bank {name} @1")
    recall.set_ylabel("recall")
    recall.set_ylim(0, 1.02)
    recall.legend(fontsize="small")
    speed.plot(*column(steps, "tokens_per_second"))
    speed.set_ylabel("tokens/s")
    speed.set_ylim(bottom=0)
    speed.set_xlabel("step")
    figure.savefig(target)
    print(target)


if __name__ == "__main__":
    main()
