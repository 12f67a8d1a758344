#!/usr/bin/env python3
"""What a memory of a given size needs: bytes, where they lie, the time of a hop, what bounds it, and its price.

  scripts/scale_plan.py                                    the table of docs/scale.md
  scripts/scale_plan.py --tokens 1e9 --gpus 2 --keys int8  one plan, term by term
  scripts/scale_plan.py --check                            predictions beside measured runs; exit 1 beyond the tolerance

Every rate is an argument of the machine, measured where that was possible (RATES says where); --rate NAME=VALUE changes
one. A hop is one question routed and its first token: per routing layer the query goes to every rank, each scans its
keys and selects, the candidates come back, the content of the chosen documents is read and joins the attention.
"""
import argparse
import dataclasses
import json
import math
import sys

KEY_BYTES = {"bf16": lambda n: 2 * n, "int8": lambda n: n + 16, "int4": lambda n: n // 2 + 16}


@dataclasses.dataclass(frozen=True)
class Shape:
    layers: int  # routing layers
    width: int  # G·d, elements of a key
    weights_gb: float  # read once for the prompt
    prompt_ms: float  # the prompt's pass on one H200 without routing and content: products and launches


SHAPES = {"4b": Shape(18, 1024, 8.0, 4.6), "135m": Shape(15, 192, 0.27, 1.4)}

CHUNK_TOKENS = 64

# Rates of one machine. "measured" ones are from docs/performance.md; the others are what vendors state.
H200 = {
    "copy_tbs": 4.28,  # within the GPU's memory; measured
    "scan_share_bf16": 0.99,  # of copy_tbs, 32 query tokens; measured
    "scan_share_int8": 0.86,  # measured
    "scan_share_int4": 0.43,  # measured: unpacking bounds it
    "select_us": 18.0,  # bf16: choice of the best of a layer; measured
    "certify_us": 48.0,  # int8, int4: candidates found, scored again, chosen; measured
    # Quantised keys whose bf16 ones are in host memory: chunks of a layer that are scored again (keys near centres,
    # 1.6 million chunks; the number follows the width of the bounds and hardly the number of chunks), how fast the
    # host gathers and sends them, and the wait that begins it; measured
    "again_int8": 840.0,
    "again_int4": 12300.0,
    "gather_gbs": 11.0,
    "gather_us": 60.0,
    "gpu_gb": 141.0,
    "reserve_gb": 12.0,  # weights, caches, hot content
    "host_gbs": 50.0,  # host memory to GPU, page-locked; measured about 55 of a large copy
    "content_us": 110.0,  # a layer: the choice comes to the host, the host gathers and sends up; beside host_gbs
    "nvme_gbs": 6.5,  # of one drive, stated
    "nvme_us": 90.0,  # latency of a read, stated
    "nvme_drives": 4.0,
    "link_us": 12.0,  # a message between GPUs of one host, an assumption; NCCL took 25 with an empty answer
    "link_gbs": 200.0,  # NVLink, one direction
    "net_us": 20.0,  # between hosts, stated
    "net_gbs": 45.0,  # 400 Gbit/s a GPU, stated
    "gpus_a_host": 8.0,
    "price_gpu_hour": 3.5,  # an H200 by the hour, US dollars; an assumption
}
RATES = {"h200": H200, "h100": H200 | {"copy_tbs": 3.0, "gpu_gb": 80.0, "price_gpu_hour": 2.5}}

# what, plan, measured ms, where it stands
RUNS = [
    ("routing, bf16, 1 H200", dict(tokens=100e6, keys="bf16"), "route_ms", 13.9, "performance.md, .772 ms a layer"),
    ("routing, int8, 1 H200", dict(tokens=100e6, keys="int8"), "route_ms", 8.8, "performance.md, .490 ms a layer"),
    ("first token, bf16, 1 H200", dict(tokens=100e6, keys="bf16"), "hop_ms", 21.1, "performance.md, msa bench ttft"),
    ("first token, 135m, 10M tokens", dict(tokens=10e6, keys="bf16", shape="135m"), "hop_ms", 3.7, "performance.md"),
    # H100: those of two GPUs were predicted before they were run; no rate was changed for any of them.
    *((f"{what}, {keys}, {gpus} H100", dict(tokens=100e6, keys=keys, gpus=gpus, machine="h100"), field, measured,
       "performance.md, On two GPUs")
      for gpus, keys, route, first in ((1, "bf16", 20.76, 27.07), (2, "bf16", 11.67, 17.94), (2, "int8", 7.95, 14.01))
      for what, field, measured in (("routing", "route_ms", route), ("first token", "hop_ms", first))),
]
TOLERANCE = 0.15


@dataclasses.dataclass
class Plan:
    tokens: float
    keys: str = "bf16"
    gpus: int = 1
    shape: str = "4b"
    content: str = "host"  # or nvme
    machine: str = "h200"
    document_tokens: int = 512
    top_k: int = 16
    rates: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self.r = RATES[self.machine] | self.rates
        self.s = SHAPES[self.shape]

    @property
    def chunks(self):
        return self.tokens / CHUNK_TOKENS

    @property
    def keys_gb(self):
        return self.chunks * self.s.layers * KEY_BYTES[self.keys](self.s.width) / 1e9

    @property
    def content_gb(self):
        return self.chunks * self.s.layers * 4 * self.s.width / 1e9

    @property
    def fits(self):
        """Share of the keys that lies on the GPUs."""
        return min(1.0, self.gpus * (self.r["gpu_gb"] - self.r["reserve_gb"]) / self.keys_gb)

    @property
    def has_both(self):
        """Whether the bf16 keys lie on the GPUs beside the quantised ones."""
        both = self.keys_gb + self.chunks * self.s.layers * KEY_BYTES["bf16"](self.s.width) / 1e9
        return both <= self.gpus * (self.r["gpu_gb"] - self.r["reserve_gb"])

    def terms_us(self):
        """Of one routing layer, by name, microseconds."""
        r, s = self.r, self.s
        layer_gb = self.keys_gb / s.layers / self.gpus
        on_gpu = self.fits
        scan = layer_gb * on_gpu / (r["copy_tbs"] * r[f"scan_share_{self.keys}"]) * 1e3
        from_host = layer_gb * (1 - on_gpu) * (2 * s.width / KEY_BYTES[self.keys](s.width)) / r["host_gbs"] * 1e6
        hosts = math.ceil(self.gpus / r["gpus_a_host"])
        query_mb, candidates_mb = 32 * s.width * 4 / 1e6, self.top_k * 16 * (self.gpus - 1) / 1e6
        hop_us, gbs = (r["link_us"], r["link_gbs"]) if hosts == 1 else (r["net_us"], r["net_gbs"])
        exchange = 0.0
        if self.gpus > 1:
            # out along a tree, back to one
            exchange = math.ceil(math.log2(self.gpus)) * (hop_us + query_mb / gbs * 1e3) + hop_us + candidates_mb / gbs * 1e3
        content_mb = self.top_k * self.document_tokens / CHUNK_TOKENS * 4 * s.width / 1e6
        elsewhere = (self.gpus - 1) / self.gpus
        content = r["content_us"] + content_mb / r["host_gbs"] * 1e3
        if self.content == "nvme":
            drives = r["nvme_drives"] * hosts
            content += r["nvme_us"] * math.ceil(self.top_k / drives / 8) + content_mb / min(
                drives * r["nvme_gbs"], r["net_gbs"] if hosts > 1 else 1e9) * 1e3
        if elsewhere:
            content += hop_us + elsewhere * content_mb / gbs * 1e3
        select = r["select_us"] if self.keys == "bf16" else r["certify_us"]
        again = 0.0
        if self.keys != "bf16" and not self.has_both:
            again = r["gather_us"] + r[f"again_{self.keys}"] * KEY_BYTES["bf16"](s.width) / r["gather_gbs"] / 1e3
        return {"scan": scan, "keys from host": from_host, "select": select, "scored again": again, "exchange": exchange,
                "content": content}

    @property
    def route_ms(self):
        t = self.terms_us()
        return self.s.layers * sum(t[x] for x in ("scan", "keys from host", "select", "scored again", "exchange")) / 1e3

    @property
    def hop_ms(self):
        return self.s.layers * sum(self.terms_us().values()) / 1e3 + self.s.prompt_ms * H200["copy_tbs"] / self.r["copy_tbs"]

    @property
    def bound_by(self):
        terms = {name: us * self.s.layers / 1e3 for name, us in self.terms_us().items()} | {"model": self.s.prompt_ms}
        return max(terms, key=terms.get)

    @property
    def hop_cents(self):
        return self.hop_ms / 3.6e6 * self.gpus * self.r["price_gpu_hour"] * 100


TABLE = [
    dict(tokens=100e6, keys="bf16", gpus=1), dict(tokens=100e6, keys="int8", gpus=1),
    dict(tokens=100e6, keys="bf16", gpus=2), dict(tokens=100e6, keys="int8", gpus=2),
    dict(tokens=1e9, keys="int8", gpus=2, content="nvme"), dict(tokens=1e9, keys="int4", gpus=2, content="nvme"),
    dict(tokens=1e9, keys="int8", gpus=4, content="nvme"), dict(tokens=1e9, keys="int8", gpus=8, content="nvme"),
    dict(tokens=100e9, keys="int4", gpus=128, content="nvme"), dict(tokens=100e9, keys="int8", gpus=256, content="nvme"),
    dict(tokens=100e9, keys="int8", gpus=1024, content="nvme"),
]


def number(tokens):
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if tokens >= size:
            return f"{tokens / size:g}{letter}"
    return f"{tokens:g}"


def size(gb):
    return f"{gb / 1e3:.1f} TB" if gb >= 1000 else f"{gb:.1f} GB"


def print_table(rates, machine):
    print("| tokens | GPUs | keys | all keys | on a GPU | content | in | routing | hop | bound by | cents a hop |")
    print("|--:|--:|---|--:|--:|--:|---|--:|--:|---|--:|")
    for row in TABLE:
        p = Plan(**row, rates=rates, machine=machine)
        share = "all" if p.fits == 1 else f"{100 * p.fits:.0f} %"
        print(f"| {number(p.tokens)} | {p.gpus} | {p.keys} | {size(p.keys_gb)} | {size(p.keys_gb * p.fits / p.gpus)}, {share}"
              f" | {size(p.content_gb)} | {p.content} | {p.route_ms:.1f} ms | {p.hop_ms:.1f} ms | {p.bound_by}"
              f" | {p.hop_cents:.4f} |")


def print_plan(p):
    out = {"tokens": p.tokens, "gpus": p.gpus, "keys": p.keys, "keys_gb": p.keys_gb, "content_gb": p.content_gb,
           "share_of_keys_on_gpus": p.fits, "layer_us": p.terms_us(), "route_ms": p.route_ms, "hop_ms": p.hop_ms,
           "bound_by": p.bound_by, "cents_a_hop": p.hop_cents}
    print(json.dumps(out, indent=2))


def check(rates):
    worst = 0.0
    for what, plan, field, measured, source in RUNS:
        predicted = getattr(Plan(**plan, rates=rates), field)
        error = predicted / measured - 1
        worst = max(worst, abs(error))
        print(f"{what:36} predicted {predicted:6.2f} ms, measured {measured:6.2f} ms, {100 * error:+5.1f} %  ({source})")
    return 0 if worst <= TOLERANCE else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=float, help="tokens of the memory; without it the table is printed")
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--keys", choices=KEY_BYTES, default="bf16")
    parser.add_argument("--shape", choices=SHAPES, default="4b")
    parser.add_argument("--content", choices=("host", "nvme"), default="host")
    parser.add_argument("--machine", choices=RATES, default="h200")
    parser.add_argument("--rate", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    rates = {}
    for text in args.rate:
        name, _, value = text.partition("=")
        if name not in H200:
            parser.error(f"no rate {name}; there are: {', '.join(H200)}")
        rates[name] = float(value)
    if args.check:
        sys.exit(check(rates))
    if args.tokens is None:
        print_table(rates, args.machine)
    else:
        print_plan(Plan(args.tokens, args.keys, args.gpus, args.shape, args.content, args.machine, rates=rates))


if __name__ == "__main__":
    main()
