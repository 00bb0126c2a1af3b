"""Fine-tuning on any number of processes, on transformers' Trainer:

    torchrun --nproc-per-node 8 -m mlpfusion.train MODEL OUT --task sst2 --data glue/SST-2 --fsdp

Flags that the mlpfusion command has mean what they mean there; --batch is that of all
processes together. OUT.train holds a checkpoint for each evaluation; --resume goes on from
the last one, on as many processes as there are then. The best weights by the dev set are
written to OUT, which the command reads. See docs/pytorch.md."""

import argparse
import os
import pathlib
import shutil
import sys

import torch
import transformers

from .data import TASKS, Labelled, read, score
from .loading import from_pretrained
from .optim import follow, param_groups

# The paper's AdamW, as the command has it; SGD has no decay.
ADAMW = dict(betas=(0.9, 0.98), eps=1e-6)


class Trainer(transformers.Trainer):
    """With fused units that count as the units they stand for."""

    def __init__(self, *args, clip, sgd, **kwargs):
        super().__init__(*args, **kwargs)
        self.clip, self.sgd = clip, sgd
        # A classifier's loss is a mean over the rows that it is given; taken for a sum over
        # tokens it would be multiplied by the number of processes.
        self.model_accepts_loss_kwargs = False

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            model = self.model if model is None else model
            groups = param_groups(model, self.args.learning_rate, self.args.weight_decay)
            optimizer = torch.optim.SGD(groups) if self.sgd else torch.optim.AdamW(groups, **ADAMW)
            # DeepSpeed steps on flat parts of its own, which have no units.
            self.optimizer = optimizer if self.is_deepspeed_enabled else follow(optimizer, model, self.clip)
        return self.optimizer


def arguments():
    p = argparse.ArgumentParser(prog="python -m mlpfusion.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", metavar="MODEL", help="checkpoint, compressed or not")
    p.add_argument("out", metavar="OUT")
    p.add_argument("--task", required=True, choices=TASKS)
    p.add_argument("--data", required=True, type=pathlib.Path, help="folder of train and dev files: GLUE's TSV, CSV, JSONL")
    p.add_argument("--text", help="column of the text (task text)")
    p.add_argument("--text-pair", help="column of the second text (task text)")
    p.add_argument("--label", help="column of the label (task text)")
    p.add_argument("--regression", action="store_true", help="labels are numbers (task text)")
    p.add_argument("--max-length", type=int, default=128, help="tokens of an example")
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--max-steps", type=int, default=0, help="stop after so many steps (default as the epochs make)")
    p.add_argument("--lr", type=float, help="learning rate (default 2e-5, 0.1 with sgd)")
    p.add_argument("--batch", type=int, default=32, help="sequences of a batch, all processes together")
    p.add_argument("--accumulate", type=int, default=1, help="passes in which a batch is taken")
    p.add_argument("--schedule", default="linear", choices=["linear", "cosine", "constant"])
    p.add_argument("--warmup", type=float, default=0.06, help="share of the steps in which the learning rate rises")
    p.add_argument("--optimizer", default="adamw", choices=["adamw", "sgd"])
    p.add_argument("--weight-decay", type=float, help="decoupled, none on biases and norms (default 0.1 with adamw)")
    p.add_argument("--clip", type=float, default=1.0, help="largest norm of the gradient, 0 for none")
    p.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    p.add_argument("--train-routers", action="store_true", help="train the routers of mixtures of experts too")
    p.add_argument("--eval-every", type=int, default=0, help="evaluate, and keep a checkpoint, every so many steps (default every epoch)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--fsdp", action="store_true", help="shard the model over the processes (FSDP2)")
    p.add_argument("--deepspeed", help="configuration file of DeepSpeed; its own clipping does not weigh fused units")
    p.add_argument("--gradient-checkpointing", action="store_true", help="compute activations anew in the backward pass")
    p.add_argument("--resume", action="store_true", help="go on with the run that was stopped")
    p.add_argument("--overwrite", action="store_true", help="replace OUT when it is there")
    return p.parse_args()


def places(a):
    """OUT and the folder of its checkpoints."""
    out = pathlib.Path(a.out)
    return out, out.with_name(out.name + ".train")


def last_checkpoint(work):
    """The newest checkpoint that was written to its end, None if there is none."""
    whole = [p.parent for p in work.glob("checkpoint-*/trainer_state.json") if p.stat().st_size > 0]
    return str(max(whole, key=lambda p: int(p.name.split("-")[1]))) if whole else None


def prepare(a):
    """Reads what is asked for: data, tokenizer, model and the checkpoint to go on from."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    if a.batch < 1 or a.accumulate < 1 or a.batch % (processes * a.accumulate):
        raise ValueError(f"batch: expected a multiple of {processes} processes times {a.accumulate} passes, found {a.batch}")
    if a.fsdp and "WORLD_SIZE" not in os.environ:
        raise ValueError("fsdp: expected to be started by torchrun, found one process of no group")
    out, work = places(a)
    if out.exists() and not a.overwrite:
        raise ValueError(f"{out}: it exists already; give --overwrite to replace it, or choose another name")
    last = last_checkpoint(work)
    if last and not a.resume:
        raise ValueError(f"{work}: expected no earlier run, found its checkpoints: give --resume to go on with it or remove the folder")

    data = read(a.data, a.task, text=a.text, pair=a.text_pair, label=a.label, regression=a.regression)
    tokenizer = transformers.AutoTokenizer.from_pretrained(a.model)
    transformers.set_seed(a.seed)  # of a new head, alike in all processes
    model = from_pretrained(
        a.model, auto=transformers.AutoModelForSequenceClassification, dtype=torch.float32, ignore_mismatched_sizes=True,
        **data.head(transformers.AutoConfig.from_pretrained(a.model)),
    )  # fmt: skip
    if not a.train_routers:
        for name, p in model.named_parameters():
            if ".router." in name:
                p.requires_grad_(False)
    if a.deepspeed and any(b.step is not None or b.form.get("masked") for b in model.fused_blocks()):
        raise ValueError(f"{a.model}: expected no step multipliers and no masks, which DeepSpeed does not see, found some: train with --fsdp")
    return data, tokenizer, model, last


def main():
    a = arguments()
    try:
        data, tokenizer, model, last = prepare(a)
    except (ValueError, OSError) as e:
        sys.exit(f"mlpfusion.train: {e}")
    processes = int(os.environ.get("WORLD_SIZE", 1))
    out, work = places(a)
    sgd, cpu = a.optimizer == "sgd", not torch.cuda.is_available()
    when = dict(eval_strategy="steps", eval_steps=a.eval_every, save_strategy="steps", save_steps=a.eval_every) if a.eval_every else dict(eval_strategy="epoch", save_strategy="epoch")
    args = transformers.TrainingArguments(
        output_dir=str(work), seed=a.seed, num_train_epochs=a.epochs, max_steps=a.max_steps or -1,
        per_device_train_batch_size=a.batch // processes // a.accumulate, gradient_accumulation_steps=a.accumulate,
        learning_rate=a.lr or (0.1 if sgd else 2e-5), lr_scheduler_type="constant_with_warmup" if a.schedule == "constant" else a.schedule,
        warmup_steps=a.warmup, weight_decay=a.weight_decay if a.weight_decay is not None else (0.0 if sgd else 0.1), max_grad_norm=a.clip if a.deepspeed else 0.0,
        bf16=a.precision == "bf16", activation_checkpointing=a.gradient_checkpointing and not a.fsdp,
        fsdp=a.fsdp, fsdp_config=dict(version=2, activation_checkpointing=a.gradient_checkpointing) if a.fsdp else None,
        deepspeed=a.deepspeed, use_cpu=cpu, ddp_backend="gloo" if cpu and "WORLD_SIZE" in os.environ else None,
        ddp_find_unused_parameters=any(".router." in n for n, _ in model.named_parameters()),  # experts that see no token
        logging_steps=1, load_best_model_at_end=True, metric_for_best_model=data.metrics[0], greater_is_better=True,
        save_total_limit=2, report_to=[], disable_tqdm=not sys.stderr.isatty(), **when,
    )  # fmt: skip
    trainer = Trainer(
        model=model, args=args, clip=a.clip, sgd=sgd,
        train_dataset=Labelled(data, data.train, tokenizer, a.max_length), eval_dataset=Labelled(data, data.dev, tokenizer, a.max_length),
        data_collator=transformers.DataCollatorWithPadding(tokenizer), compute_metrics=lambda p: score(data, p.predictions, p.label_ids),
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=last)
    fresh = out.with_name("." + out.name + ".tmp")
    trainer.save_model(str(fresh))
    if trainer.is_world_process_zero():
        tokenizer.save_pretrained(fresh)
        (fresh / "training_args.bin").unlink(missing_ok=True)
        if out.exists():
            shutil.rmtree(out)
        fresh.rename(out)


if __name__ == "__main__":
    try:
        main()
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
