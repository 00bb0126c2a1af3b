"""Cells of a notebook: compress a model, then fine-tune it on a GPU, or without one on the
CPU, with transformers' Trainer.

    python trainer.py MODEL DATA OUT

MODEL is a checkpoint, DATA a folder of train.csv and dev.csv with the columns text and
label, OUT a folder for what is made."""

# %% What is to be compressed, and the data.
import pathlib
import sys

import torch
import transformers

import mlpfusion
from mlpfusion.data import Labelled, read, score

source, folder, out = map(pathlib.Path, sys.argv[1:])
data = read(folder, "text")

# %% A quarter of the hidden units, chosen and fitted on the training texts.
mlpfusion.fuse(source, out / "small", ratio=0.25, method="calibrated", task="text", data=folder, text="text", label="label")
print([b["width"] for b in mlpfusion.inspect(out / "small")["blocks"]], "hidden units")

# %% The model with a new head, and AdamW that lets a fused unit count as those it stands for.
tokenizer = transformers.AutoTokenizer.from_pretrained(out / "small")
config = transformers.AutoConfig.from_pretrained(out / "small")
model = mlpfusion.from_pretrained(out / "small", auto=transformers.AutoModelForSequenceClassification, ignore_mismatched_sizes=True, **data.head(config))
optimizer = torch.optim.AdamW(mlpfusion.param_groups(model, lr=1e-4, weight_decay=0.1), betas=(0.9, 0.98), eps=1e-6)
mlpfusion.follow(optimizer, model, clip=1.0)

# %% Trainer takes the GPU by itself. Its own clipping is off, for follow has done it.
arguments = transformers.TrainingArguments(
    output_dir=str(out / "checkpoints"), num_train_epochs=2, per_device_train_batch_size=8, max_grad_norm=0.0, bf16=torch.cuda.is_available(),
    eval_strategy="epoch", save_strategy="no", report_to=[], disable_tqdm=True,
)  # fmt: skip
trainer = transformers.Trainer(
    model=model, args=arguments, optimizers=(optimizer, None), data_collator=transformers.DataCollatorWithPadding(tokenizer),
    train_dataset=Labelled(data, data.train, tokenizer, 128), eval_dataset=Labelled(data, data.dev, tokenizer, 128),
    compute_metrics=lambda p: score(data, p.predictions, p.label_ids),
)  # fmt: skip
trainer.train()

# %% What the command reads: mlpfusion eval OUT/tuned --task text --data DATA
model.save_pretrained(out / "tuned")
tokenizer.save_pretrained(out / "tuned")
