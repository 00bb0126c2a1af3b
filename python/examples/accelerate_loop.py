"""A training loop of one's own on accelerate:

    accelerate launch --num-processes 2 accelerate_loop.py MODEL DATA OUT
    accelerate launch --config-file fsdp2.yaml accelerate_loop.py MODEL DATA OUT

DATA is a folder of train.csv and dev.csv with the columns text and label."""

import pathlib
import sys

import torch
import transformers
from accelerate import Accelerator

import mlpfusion
from mlpfusion.data import Labelled, read


def main(source, folder, out):
    accelerator = Accelerator()
    data = read(pathlib.Path(folder), "text")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    transformers.set_seed(0)
    model = mlpfusion.from_pretrained(source, auto=transformers.AutoModelForSequenceClassification, **data.head(transformers.AutoConfig.from_pretrained(source)))
    model.train()
    optimizer = torch.optim.AdamW(mlpfusion.param_groups(model, lr=1e-3, weight_decay=0.1), betas=(0.9, 0.98), eps=1e-6)
    mlpfusion.follow(optimizer, model, clip=1.0)
    loader = torch.utils.data.DataLoader(Labelled(data, data.train, tokenizer, 128), batch_size=4, shuffle=True, collate_fn=transformers.DataCollatorWithPadding(tokenizer))
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for epoch in range(3):
        for batch in loader:
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        accelerator.print(f"epoch {epoch + 1}: loss {loss.item():.4f}")
    state = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(out, state_dict=state)
        tokenizer.save_pretrained(out)
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
