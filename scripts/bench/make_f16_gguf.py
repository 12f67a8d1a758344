#!/usr/bin/env python3
"""Writes a GGUF file again with every quantised matrix as F16, so that a baseline can be timed without quantisation.

Usage: make_f16_gguf.py IN.gguf OUT.gguf          (needs the package `gguf`)
"""
import os
import sys

import gguf
import numpy as np

FILE_TYPE_MOSTLY_F16 = 1
# Written by GGUFWriter itself.
OWN_FIELDS = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture", "general.file_type"}


def copy_fields(reader, writer):
    for field in reader.fields.values():
        if field.name in OWN_FIELDS:
            continue
        kind = field.types[0]
        sub_type = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=sub_type)


def as_f16(tensor):
    kept = (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
    if tensor.tensor_type in kept:
        return np.array(tensor.data)
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float16)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = sys.argv[1:]
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target + ".partial", reader.get_field("general.architecture").contents())
    writer.add_file_type(FILE_TYPE_MOSTLY_F16)
    copy_fields(reader, writer)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, as_f16(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(target + ".partial", target)


if __name__ == "__main__":
    main()
