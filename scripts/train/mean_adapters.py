#!/usr/bin/env python3
"""The mean of the weights of two adapters of one shape, such as a run's and that of its start.

usage: mean_adapters.py A B OUTPUT      three adapter.safetensors files

Tensors are F16 or F32: the mean is computed in float32 and stored in the tensor's own type, beside A's metadata.
adapter_config.json beside A is copied beside OUTPUT where none is. Needs numpy and safetensors.
"""
import pathlib
import shutil
import sys

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

TYPES = {"F16": np.float16, "F32": np.float32}
CONFIG = "adapter_config.json"


def open_adapter(path):
    try:
        return safe_open(path, framework="np")
    except (OSError, SafetensorError) as error:
        sys.exit(f"error: {path} cannot be read as safetensors: {error} (fix: give an adapter.safetensors file)")


def described(adapter, names):
    """Name → type and shape."""
    slices = {name: adapter.get_slice(name) for name in names}
    return {name: f"{s.get_dtype()} {list(s.get_shape())}" for name, s in slices.items()}


def refuse_difference(path_a, a, path_b, b):
    """Exits at the first tensor, by name, that is not of one type and shape in both, or of a type without a mean."""
    for name in sorted(set(a) | set(b)):
        if a.get(name) != b.get(name):
            sys.exit(f"error: tensor {name} is {a.get(name, 'missing')} in {path_a} and {b.get(name, 'missing')} in "
                     f"{path_b} (fix: give two adapters of one rank and one model)")
        if a[name].split()[0] not in TYPES:
            sys.exit(f"error: tensor {name} is {a[name]} in {path_a} (fix: give adapters of {' and '.join(TYPES)})")


def mean(x, y):
    return np.asarray((x.astype(np.float32) + y.astype(np.float32)) / np.float32(2), dtype=x.dtype)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    path_a, path_b, output = map(pathlib.Path, sys.argv[1:])
    with open_adapter(path_a) as a, open_adapter(path_b) as b:
        tensors = described(a, a.keys())
        refuse_difference(path_a, tensors, path_b, described(b, b.keys()))
        means = {name: mean(a.get_tensor(name), b.get_tensor(name)) for name in tensors}
        metadata = a.metadata()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        save_file(means, output, metadata=metadata)
    except (OSError, SafetensorError) as error:
        sys.exit(f"error: {output} cannot be written: {error} (fix: name a file in a folder that can be written to)")
    config, beside = path_a.parent / CONFIG, output.parent / CONFIG
    if config.exists() and not beside.exists():
        shutil.copyfile(config, beside)
    print(f"{output}: the mean of {len(means)} tensors", file=sys.stderr)


if __name__ == "__main__":
    main()
