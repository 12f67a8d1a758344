"""The pictures of docs/evidence.md: the scale curve and the needle heat map, as SVG that is the same each time."""


def size_name(tokens):
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if tokens >= unit:
            return f"{tokens / unit:g}{name}"
    return str(tokens)


def draw_scale(plt, report):
    points = report["points"]
    sizes = [p["tokens"] for p in points]
    figure, (quality, cost) = plt.subplots(2, 1, figsize=(7, 7), sharex=True, constrained_layout=True)
    for metric in ("recall@1", "recall@16", "union_recall@16"):
        values = [p["relative"][metric] for p in points]
        line, = quality.plot(sizes, [v["value"] for v in values], marker="o", label=metric.replace("_", " "))
        quality.fill_between(sizes, *zip(*(v["interval"] for v in values)), alpha=0.15, color=line.get_color())
    if all("answers_relative" in p for p in points):
        values = [p["answers_relative"]["f1"] for p in points]
        line, = quality.plot(sizes, [v["value"] for v in values], marker="s", linestyle="--", label="answers, F1")
        quality.fill_between(sizes, *zip(*(v["interval"] for v in values)), alpha=0.15, color=line.get_color())
    quality.set_ylabel("share of the smallest bank's quality")
    quality.set_ylim(bottom=0)
    quality.legend(fontsize="small")
    cost.plot(sizes, [p["routing_ms"] for p in points], marker="o", label="scans of all layers")
    cost.plot(sizes, [p["question_ms"] for p in points], marker="s", label="question up to its scores")
    cost.set_ylabel("ms, median")
    cost.set_yscale("log")
    cost.set_xscale("log")
    cost.set_xticks(sizes, [size_name(p["size"]) for p in points])
    cost.minorticks_off()
    cost.set_xlabel("tokens in the bank")
    cost.legend(fontsize="small")
    return figure


def draw_needles(plt, report):
    results = [r for r in report["results"] if "depths" in r]
    if not results:
        return None
    tasks = list(dict.fromkeys(r["task"] for r in results))
    sizes = sorted({r["tokens"] for r in results})
    metrics = {"routed_recall": "its document is routed", "score": "the answer holds it"}
    figure, axes = plt.subplots(len(metrics), len(tasks), figsize=(2.2 * len(tasks) + 1, 5.5), squeeze=False,
                                sharex=True, sharey=True, constrained_layout=True)
    depths = sorted({int(d) for r in results for d in r["depths"]})
    for row, (metric, title) in enumerate(metrics.items()):
        for column, task in enumerate(tasks):
            grid = [[float("nan")] * len(sizes) for _ in depths]
            for r in (r for r in results if r["task"] == task):
                for depth, values in r["depths"].items():
                    grid[depths.index(int(depth))][sizes.index(r["tokens"])] = values[metric]
            axis = axes[row][column]
            image = axis.imshow(grid, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
            axis.set_xticks(range(len(sizes)), [size_name(s) for s in sizes])
            axis.set_yticks(range(0, len(depths), 2), [f"{d} %" for d in depths[::2]], fontsize="small")
            if row == 0:
                axis.set_title(task, fontsize="small")
            if column == 0:
                axis.set_ylabel(f"{title}; depth")
    figure.colorbar(image, ax=axes)
    return figure


def draw(records, folder):
    """Writes a picture for every record that has one; yields the paths."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "msa"  # the same ids in the file each time
    import matplotlib.pyplot as plt

    kinds = {"scale": draw_scale, "niah": draw_needles}
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in records.items():
        kind = kinds.get(record["report"]["task"])
        figure = kind(plt, record["report"]) if kind else None
        if figure is None:
            continue
        path = folder / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
        yield path
