"""Writes quant_golden.inc: blocks of every GGUF type and their values, as the PyPI package `gguf` decodes them.

usage: make_quant_golden.py > quant_golden.inc
"""
import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

rng = np.random.default_rng(20260321)


def random_blocks(kind: T) -> np.ndarray:
    """One block of random bits with scales of ordinary size."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    block = rng.integers(0, 256, size, dtype=np.uint8)
    half = lambda: np.array([rng.uniform(-0.1, 0.1)], dtype=np.float16).view(np.uint8)
    if kind == T.Q6_K:
        block[-2:] = half()
    else:
        block[:2] = half()
        if kind in (T.Q4_1, T.Q4_K):
            block[2:4] = half()
    return block


def literals(values: np.ndarray) -> str:
    """C++ float literals that read back as the same bits."""
    texts = (f"{float(v):.9g}" for v in values.astype(np.float32))
    return ", ".join(t + ("f" if "." in t or "e" in t else ".0f") for t in texts)


def emit(kind: T, block: np.ndarray, values: np.ndarray) -> None:
    text = literals(values)
    print(f'{{DType::k{kind.name}, "{block.tobytes().hex()}",\n {{{text}}}}},')


print("// Written by make_quant_golden.py with the PyPI package gguf. {type, block as hexadecimal, values}")
for kind in (T.F16, T.BF16):
    block = gguf.quantize(rng.standard_normal(8).astype(np.float32), kind).view(np.uint8)
    emit(kind, block, gguf.dequantize(block.view(np.float16) if kind == T.F16 else block, kind))
for kind in (T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q4_K, T.Q6_K):
    block = random_blocks(kind)
    emit(kind, block, gguf.dequantize(block, kind))
values = np.concatenate([rng.standard_normal(31), [3.5]]).astype(np.float32)
print("#define MSA_Q8_0_INPUT {" + literals(values) + "}")
print(f'#define MSA_Q8_0_BLOCK "{gguf.quantize(values, T.Q8_0).tobytes().hex()}"')
