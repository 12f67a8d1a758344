#!/usr/bin/env python3
"""Causal attention over packed documents: `msa bench ops` beside PyTorch's kernels, by turns on one GPU.

Ours attends to packed documents of one length without padding; PyTorch's kernels get the same work as a batch of that
length (cuDNN and flash through scaled_dot_product_attention) and, where it is installed, flash_attn's varlen kernel.
bf16, grouped heads. A ratio above 1 says that ours is faster.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

SHAPES = {"4b": (32, 8, 128), "135m": (9, 3, 64)}  # query heads, key heads, head size
RUNS_AT_ONCE = 8


def ours_ms(args):
    command = [args.msa, "bench", "ops", "--device", "cuda", "--shape", args.shape, "--documents", str(args.documents),
               "--tokens", str(args.tokens), "--repeats", str(args.repeats), "--json"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    if result.returncode != 0:
        sys.exit(f"error: this failed: {' '.join(command)}")
    return next(row["ms"] for row in json.loads(result.stdout)["ops"] if row["op"] == "attention")


def best_ms(work, repeats):
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(RUNS_AT_ONCE):
            work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / RUNS_AT_ONCE)
    return min(times)


def torch_kernels(args):
    """Name → a call, for every kernel that takes this shape here."""
    heads, groups, d = SHAPES[args.shape]
    make = lambda h: torch.randn(args.documents, args.tokens, h, d, device="cuda", dtype=torch.bfloat16)
    q, k, v = make(heads), make(groups), make(groups)
    by_head = [x.transpose(1, 2) for x in (q, k, v)]  # [B, heads, T, d], no copy
    repeated = [by_head[0], *(x.repeat_interleave(heads // groups, dim=1) for x in by_head[1:])]

    def sdpa(backend, tensors):
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(*tensors, is_causal=True, enable_gqa=tensors is by_head)

    kernels = {}
    for name, backend in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
        kernels[name] = lambda backend=backend: sdpa(backend, by_head)
        kernels[name + ", keys repeated for every query head"] = lambda backend=backend: sdpa(backend, repeated)
    try:
        from flash_attn import flash_attn_varlen_func
        starts = torch.arange(0, args.documents + 1, device="cuda", dtype=torch.int32) * args.tokens
        flat = [x.flatten(0, 1) for x in (q, k, v)]
        kernels["flash_attn varlen"] = lambda: flash_attn_varlen_func(*flat, starts, starts, args.tokens, args.tokens,
                                                                      causal=True)
    except ImportError:
        pass
    usable = {}
    for name, call in kernels.items():
        try:
            call()
            usable[name] = call
        except Exception as error:  # a kernel that does not take the shape says so in many ways
            print(f"{name}: not run: {str(error).splitlines()[0][:120]}", file=sys.stderr)
    return usable


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--msa", default="build/release/msa", help="the program")
    parser.add_argument("--shape", default="4b", choices=SHAPES)
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=512, help="tokens a document")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3, help="ours and theirs by turns; the median of the ratios")
    args = parser.parse_args()
    heads, _, d = SHAPES[args.shape]
    flops = 4 * heads * d * args.documents * args.tokens * (args.tokens + 1) / 2
    ours, theirs = [], {}
    for _ in range(args.rounds):
        ours.append(ours_ms(args))
        for name, call in torch_kernels(args).items():
            theirs.setdefault(name, []).append(best_ms(call, args.repeats))
        torch.cuda.empty_cache()
    row = lambda name, ms, ratio: {"kernel": name, "ms": round(min(ms), 4), "tflops": round(flops / min(ms) / 1e9, 1),
                                   "ratio": ratio}
    rows = [row("ours", ours, 1.0)]
    for name, ms in theirs.items():
        rows.append(row(name, ms, round(statistics.median(t / o for t, o in zip(ms, ours)), 3)))
    print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__,
                      "cudnn": torch.backends.cudnn.version(), "shape": args.shape, "documents": args.documents,
                      "tokens": args.tokens, "attention": rows}, indent=2))


if __name__ == "__main__":
    main()
