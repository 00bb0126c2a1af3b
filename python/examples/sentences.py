"""Cells of a notebook: a sentence-transformers model made smaller, taught what the original
says of the same texts, and used.

    python sentences.py MODEL TEXTS OUT

MODEL is a folder of sentence-transformers, TEXTS a file with a text a line, OUT a folder
for what is made."""

# %% A quarter of the hidden units.
import pathlib
import sys

import torch
from sentence_transformers import SentenceTransformer

import mlpfusion

source, texts, out = map(pathlib.Path, sys.argv[1:])
mlpfusion.fuse(source, out / "small", ratio=0.25)

# %% The exact form, with the code by which sentence-transformers opens it.
mlpfusion.export(out / "small", out / "code", remote_code=True)
original = SentenceTransformer(str(source))
model = SentenceTransformer(str(out / "code"), trust_remote_code=True)

# %% Its embeddings learn the original's.
lines = texts.read_text().splitlines()
stock = next(m for m in model.modules() if hasattr(m, "fused_blocks"))
optimizer = torch.optim.AdamW(mlpfusion.param_groups(stock, lr=1e-4, weight_decay=0.0))
mlpfusion.follow(optimizer, stock, clip=1.0)
wanted = original.encode(lines, convert_to_tensor=True)
model.train()
for epoch in range(2):
    for at in range(0, len(lines), 8):
        batch = {name: value.to(model.device) for name, value in model.preprocess(lines[at : at + 8]).items() if isinstance(value, torch.Tensor)}
        found = model(batch)["sentence_embedding"]
        loss = 1 - torch.nn.functional.cosine_similarity(found, wanted[at : at + 8].to(found.device)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"epoch {epoch + 1}: distance {loss.item():.4f}")

# %% Saved as sentence-transformers saves, and opened again.
model.eval().save(str(out / "tuned"))
again = SentenceTransformer(str(out / "tuned"), trust_remote_code=True)
print(f"cosines with the original's: {torch.nn.functional.cosine_similarity(again.encode(lines, convert_to_tensor=True), wanted).mean().item():.4f}")
