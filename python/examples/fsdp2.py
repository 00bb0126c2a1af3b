"""FSDP2 without a trainer: a loop of one's own, the model sharded over torchrun's processes.

    torchrun --nproc-per-node 2 fsdp2.py MODEL DATA OUT

MODEL is a compressed checkpoint, DATA a folder of train.csv and dev.csv with the columns
text and label."""

import pathlib
import sys

import torch
import torch.distributed as dist
import transformers
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

import mlpfusion
from mlpfusion.data import Labelled, read


def main(source, folder, out):
    gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if gpu else "gloo")
    device = torch.device("cuda", dist.get_rank() % torch.cuda.device_count()) if gpu else torch.device("cpu")
    data = read(pathlib.Path(folder), "text")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    transformers.set_seed(0)  # of a new head, alike in all processes
    config = transformers.AutoConfig.from_pretrained(source)
    model = mlpfusion.from_pretrained(source, auto=transformers.AutoModelForSequenceClassification, ignore_mismatched_sizes=True, **data.head(config)).to(device)
    model.train()
    # Layers of any widths: P and step multipliers are buffers, which stay whole.
    mesh = dist.init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in [m for m in model.modules() if type(m).__name__.endswith(("Layer", "Block"))]:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(mlpfusion.param_groups(model, lr=1e-4, weight_decay=0.1), betas=(0.9, 0.98), eps=1e-6)
    mlpfusion.follow(optimizer, model, clip=1.0)
    rows = Labelled(data, data.train, tokenizer, 128)
    sampler = torch.utils.data.DistributedSampler(rows, seed=0)
    loader = torch.utils.data.DataLoader(rows, batch_size=4, sampler=sampler, collate_fn=transformers.DataCollatorWithPadding(tokenizer))
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for batch in loader:
            loss = model(**{name: value.to(device) for name, value in batch.items()}).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        dist.all_reduce(mean := loss.detach() / dist.get_world_size())
        if dist.get_rank() == 0:
            print(f"epoch {epoch + 1}: loss {mean.item():.4f}")
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank() == 0:
        model.save_pretrained(out, state_dict=state)
        tokenizer.save_pretrained(out)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
