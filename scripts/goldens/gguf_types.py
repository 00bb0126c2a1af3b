"""Writes internal/gguf/testdata: a GGUF file with a tensor of every type that is read, of random blocks, and what the
Python package gguf makes of them.

    python scripts/goldens/gguf_types.py [--check]
"""

import numpy as np
from gguf import GGMLQuantizationType as Q, GGUFWriter, dequantize
from gguf.constants import GGML_QUANT_SIZES
from safetensors.numpy import save_file

from common import ROOT, main

# Where a block has its factors, as halves.
HALVES = {Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}


def write(out):
    rng = np.random.default_rng(7)
    w = GGUFWriter(f"{out}/types.gguf", "llama")
    w.add_name("types")
    w.add_bool("a.bool", True)
    w.add_int8("a.int8", -3)
    w.add_uint64("a.uint64", 1 << 40)
    w.add_float64("a.float64", 0.1)
    w.add_array("a.texts", ["ab", "ü", ""])
    w.add_array("a.numbers", [1, -2, 3])
    w.add_array("a.floats", [0.5, -1.5])
    want = {}
    for q in [Q.F32, Q.F16, Q.BF16, *HALVES]:
        block, size = GGML_QUANT_SIZES[q]
        rows, cols = 3, 512
        if q in HALVES:
            raw = rng.integers(0, 256, (rows * cols // block, size), dtype=np.uint8)
            for at in HALVES[q]:  # normal, subnormal and negative factors
                d = (rng.normal(size=len(raw)) * rng.choice([1e-6, 1e-2, 1], len(raw))).astype(np.float16)
                raw[:, at : at + 2] = d.view(np.uint8).reshape(-1, 2)
            raw = raw.reshape(rows, -1)
        else:
            v = (rng.normal(size=(rows, cols)) * rng.choice([1e-6, 1, 100], (rows, cols))).astype(np.float32)
            raw = {Q.F32: v, Q.F16: v.astype(np.float16), Q.BF16: (v.view(np.uint32) >> 16).astype(np.uint16)}[q]
            raw = raw.view(np.uint8)
        w.add_tensor(q.name, raw, raw_dtype=q)
        want[q.name] = np.ascontiguousarray(dequantize(raw, q).astype(np.float32).reshape(rows, cols))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    save_file(want, f"{out}/types.safetensors")


if __name__ == "__main__":
    main(write, ROOT / "internal/gguf/testdata")
