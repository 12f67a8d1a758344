#!/usr/bin/env python3
"""Times faiss-cpu's flat inner product over N x d float keys with M queries at once, through its own loops and through
BLAS; the faster path counts. One JSON object on stdout.

Usage: faiss_baseline.py [--keys 200000] [--dimension 192] [--queries 32] [--threads 2] [--runs 5]
"""
import argparse
import json
import time

import faiss
import numpy as np


def time_search(index, queries, args):
    """Milliseconds of each run."""
    index.search(queries, args.top_k)  # warms up
    ms = []
    for _ in range(args.runs):
        start = time.perf_counter()
        index.search(queries, args.top_k)
        ms.append((time.perf_counter() - start) * 1e3)
    return ms


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=192)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--top-k", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    faiss.omp_set_num_threads(args.threads)
    random = np.random.default_rng(7)
    keys = random.standard_normal((args.keys, args.dimension), dtype=np.float32)
    queries = random.standard_normal((args.queries, args.dimension), dtype=np.float32)
    index = faiss.IndexFlatIP(args.dimension)
    index.add(keys)
    default_threshold = faiss.cvar.distance_compute_blas_threshold
    ms = {}
    for path, threshold in {"default": default_threshold, "blas": 1}.items():
        faiss.cvar.distance_compute_blas_threshold = threshold
        ms[path] = time_search(index, queries, args)
    best_path = min(ms, key=lambda path: min(ms[path]))
    best = min(ms[best_path])
    flops = 2.0 * args.keys * args.dimension * args.queries
    print(json.dumps({"engine": "faiss-cpu IndexFlatIP", "package": faiss.__version__, "keys": args.keys,
                      "dimension": args.dimension, "queries": args.queries, "top_k": args.top_k,
                      "threads": args.threads, "ms": best, "path": best_path, "runs": ms,
                      "key_gb_per_s": keys.nbytes / best / 1e6, "gflops": flops / best / 1e6}))


if __name__ == "__main__":
    main()
