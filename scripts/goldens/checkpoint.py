"""Writes the goldens of checkpoint/: safetensors files made by the reference
implementation and by transformers, with the float32 values they stand for.

    python scripts/goldens/checkpoint.py
"""

import json
import pathlib
import shutil

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

out = pathlib.Path(__file__).resolve().parents[2] / "checkpoint" / "testdata"
shutil.rmtree(out / "golden", ignore_errors=True)
(out / "golden").mkdir(parents=True)


def bits(values):
    return torch.from_numpy(np.array(values, dtype=np.uint16).view(np.int16))


# Every class of 16-bit float: zeros, subnormals, the edges of the normals,
# infinities, NaN, and a seeded sample between them.
rng = np.random.default_rng(1)
edges16 = [0x0000, 0x8000, 0x0001, 0x8001, 0x0200, 0x03FF, 0x0400, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00]
edgesb = [0x0000, 0x8000, 0x0001, 0x8001, 0x0040, 0x007F, 0x0080, 0x3F80, 0xBF80, 0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0]
sample = rng.integers(0, 0x7C00, 114, dtype=np.uint16).tolist()
f16 = bits(edges16 + sample).view(torch.float16)
bf16 = bits(edgesb + sample).view(torch.bfloat16)

# float32 values and what PyTorch rounds them to: ties both ways, the
# subnormal range, the largest finite values, and values across all exponents.
ties = [1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 2**-24, 2**-25, 3 * 2**-25, 2**-14 - 2**-26, 65504.0, 65519.0, 0.0, -0.0]
wide = (rng.standard_normal(100) * 2.0 ** rng.integers(-26, 15, 100)).astype(np.float32).tolist()
f32 = torch.tensor(ties + wide, dtype=torch.float32)

tensors = {
    "a.half": f16,
    "a.brain": bf16.reshape(2, 64),
    "half.as.float": f16.float(),
    "brain.as.float": bf16.float(),
    "rounding": f32,
    "rounded.half": f32.half(),
    "rounded.brain": f32.bfloat16(),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(3, 0),
    "position_ids": torch.arange(6).reshape(1, 6),
    "i32": torch.tensor([1, -2, 3], dtype=torch.int32),
    "i16": torch.tensor([1, -2, 3], dtype=torch.int16),
    "i8": torch.tensor([1, -2, 3], dtype=torch.int8),
    "u8": torch.tensor([1, 2, 255], dtype=torch.uint8),
    "f64": torch.tensor([0.1], dtype=torch.float64),
    "mask": torch.tensor([True, False, True]),
}
save_file(tensors, out / "golden" / "dtypes.safetensors", metadata={"format": "pt"})

# A small model saved by transformers, whole and in shards.
torch.manual_seed(1)
config = BertConfig(vocab_size=40, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, max_position_embeddings=16)
model = BertModel(config)
model.save_pretrained(out / "golden" / "single")
model.save_pretrained(out / "golden" / "sharded", max_shard_size="4KB")
single = load_file(out / "golden" / "single" / "model.safetensors")
sums = {name: float(t.double().sum()) for name, t in sorted(single.items())}
(out / "golden" / "sums.json").write_text(json.dumps(sums, indent=1) + "\n")
