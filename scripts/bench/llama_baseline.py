#!/usr/bin/env python3
"""Times llama.cpp (through llama-cpp-python): prefill of one long prompt, decoding at batch 1. One JSON object on stdout.

Usage: llama_baseline.py --prefill MODEL.gguf --decode MODEL.gguf [--threads 2] [--prompt 512] [--tokens 128] [--runs 5]
"""
import argparse
import ctypes
import json
import os
import sys
import time

import llama_cpp


def open_context(path, threads, n_ctx, n_batch):
    return llama_cpp.Llama(model_path=path, n_ctx=n_ctx, n_batch=n_batch, n_ubatch=n_batch, n_threads=threads,
                           n_threads_batch=threads, n_gpu_layers=0, verbose=False)


def prompt_tokens(llm, count):
    text = b"The river rises in the hills to the north and runs through three old towns before it meets the sea. "
    tokens = llm.tokenize(text * (count // 8), add_bos=False)
    return tokens[:count]


def prefill_rate(path, args):
    """Tokens per second of one batch of args.prompt tokens, logits of the last one only."""
    llm = open_context(path, args.threads, args.prompt + 8, args.prompt)
    tokens = prompt_tokens(llm, args.prompt)
    rates = []
    for _ in range(args.runs + 1):  # the first warms up
        llm.reset()
        start = time.perf_counter()
        llm.eval(tokens)
        rates.append(len(tokens) / (time.perf_counter() - start))
    return rates[1:]


def decode_rate(path, args):
    """Tokens per second of plain greedy decoding through the C interface: no Python sampling, no text, in the loop."""
    llm = open_context(path, args.threads, args.tokens + 64, 64)
    vocabulary = llm.n_vocab()
    rates = []
    for _ in range(args.runs + 1):
        llm.reset()
        llm.eval(prompt_tokens(llm, 16))
        context = llm.ctx
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        start = time.perf_counter()
        for _ in range(args.tokens):
            token = argmax(logits, vocabulary)
            batch = llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(token), 1)
            if llama_cpp.llama_decode(context, batch) != 0:
                sys.exit("llama_decode failed")
            logits = llama_cpp.llama_get_logits_ith(context, -1)
        rates.append(args.tokens / (time.perf_counter() - start))
    return rates[1:]


def argmax(logits, count):
    import numpy as np
    address = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * count))
    return int(np.frombuffer(address.contents, dtype=np.float32).argmax())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefill", help="model to time prefill with (F16)")
    parser.add_argument("--decode", help="model to time decoding with (quantised)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    result = {"engine": "llama.cpp", "package": llama_cpp.__version__, "threads": args.threads,
              "system": llama_cpp.llama_print_system_info().decode().strip()}
    if args.prefill:
        rates = prefill_rate(args.prefill, args)
        result["prefill"] = {"model": os.path.basename(args.prefill), "prompt_tokens": args.prompt,
                             "tokens_per_s": max(rates), "runs": rates}
    if args.decode:
        rates = decode_rate(args.decode, args)
        result["decode"] = {"model": os.path.basename(args.decode), "tokens": args.tokens,
                            "tokens_per_s": max(rates), "runs": rates}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
