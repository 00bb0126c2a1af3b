"""Fine-tuning on any number of processes, on transformers' Trainer:

    torchrun --nproc-per-node 8 -m mlpfusion.train MODEL OUT --task sst2 --data glue/SST-2 --fsdp

Flags that the mlpfusion command has mean what they mean there; --batch is that of all
processes together. OUT.train holds a checkpoint for each evaluation; --resume goes on from
the last one, on as many processes as there are then. The best weights by the dev set are
written to OUT, which the command reads. With --teacher MODEL learns another's logits too, with
--layerwise the hidden states of the model it was made from. See docs/pytorch.md."""

import argparse
import functools
import os
import pathlib
import shutil
import sys
from typing import Any

import torch
import transformers

from . import teachers
from .data import TASKS, Data, Documents, Labelled, read, score
from .loading import configuration, from_pretrained
from .optim import follow, param_groups

# The paper's AdamW, as the command has it; SGD has no decay.
ADAMW: dict[str, Any] = dict(betas=(0.9, 0.98), eps=1e-6)


class Trainer(transformers.Trainer):
    """With fused units that count as the units they stand for, and with teachers."""

    def __init__(self, *args: Any, told: argparse.Namespace, teacher: Any = None, **kwargs: Any) -> None:
        """told are the arguments of the command line."""
        super().__init__(*args, **kwargs)
        self.told, self.teacher = told, teacher
        # A classifier's loss is a mean over the rows that it is given; taken for a sum over
        # tokens it would be multiplied by the number of processes.
        self.model_accepts_loss_kwargs = told.task == "lm" and teacher is None

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        if self.teacher is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"]
        asked = {k: v for k, v in inputs.items() if k != "labels"}
        with torch.no_grad():
            wanted = self.teacher(**asked, output_hidden_states=bool(self.told.layerwise))
        said = model(**asked, output_hidden_states=bool(self.told.layerwise))
        if self.told.layerwise:
            loss, count = teachers.distance(said.hidden_states, wanted.hidden_states, asked["attention_mask"], self.teacher.config.model_type)
        else:
            rows = said.logits, wanted.logits, labels
            if self.told.task == "lm":
                rows = teachers.next_tokens(*rows)
            loss, count = teachers.distillation(*rows, self.told.distill_weight, self.told.temperature)
        # Gradients are averaged over processes, whose rows are of unlike numbers of tokens.
        everyone = self.accelerator.reduce(count.float(), "mean") if model.training else count
        loss = loss / everyone
        return (loss, dict(loss=loss, logits=said.logits)) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None:
            model = self.model if model is None else model
            groups = param_groups(model, self.args.learning_rate, self.args.weight_decay)
            optimizer = torch.optim.SGD(groups) if self.told.optimizer == "sgd" else torch.optim.AdamW(groups, **ADAMW)
            # DeepSpeed steps on flat parts of its own, which have no units.
            self.optimizer = optimizer if self.is_deepspeed_enabled else follow(optimizer, model, self.told.clip)
        return self.optimizer


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m mlpfusion.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", metavar="MODEL", help="checkpoint, compressed or not")
    p.add_argument("out", metavar="OUT")
    p.add_argument("--task", required=True, choices=TASKS)
    p.add_argument("--data", required=True, type=pathlib.Path, help="folder of train and dev files: GLUE's TSV, CSV, JSONL; text files (task lm)")
    p.add_argument("--text", help="column of the text (task text)")
    p.add_argument("--text-pair", help="column of the second text (task text)")
    p.add_argument("--label", help="column of the label (task text)")
    p.add_argument("--regression", action="store_true", help="labels are numbers (task text)")
    p.add_argument("--teacher", help="learn this fine-tuned model's logits too")
    p.add_argument("--distill-weight", type=float, default=0.5, help="the teacher's share in the loss; the labels have the rest")
    p.add_argument("--temperature", type=float, default=2.0, help="by which the logits of both are divided for the teacher's share")
    p.add_argument("--layerwise", metavar="ORIGINAL", help="train the compressed MLPs alone, to give the hidden states of the model that MODEL was made from")
    p.add_argument("--max-length", type=int, help="tokens of an example (default 128, 512 of task lm)")
    p.add_argument("--epochs", type=int, help="passes over the training set (default 3, 1 with --layerwise)")
    p.add_argument("--max-steps", type=int, default=0, help="stop after N steps (default all steps of the epochs)")
    p.add_argument("--lr", type=float, help="learning rate (default 2e-5, 0.1 with sgd)")
    p.add_argument("--batch", type=int, help="sequences of a batch, all processes together (default 32, 8 of task lm)")
    p.add_argument("--accumulate", type=int, default=1, help="passes in which a batch is taken")
    p.add_argument("--schedule", choices=["linear", "cosine", "constant"], help="of the learning rate (default linear, constant with --layerwise)")
    p.add_argument("--warmup", type=float, help="share of the steps in which the learning rate rises (default 0.06, 0 with --layerwise)")
    p.add_argument("--optimizer", default="adamw", choices=["adamw", "sgd"])
    p.add_argument("--weight-decay", type=float, help="decoupled, none on biases and norms (default 0.1 with adamw, 0 with --layerwise)")
    p.add_argument("--clip", type=float, help="largest norm of the gradient, 0 for none (default 1, 0 with --layerwise)")
    p.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    p.add_argument("--train-routers", action="store_true", help="train the routers of mixtures of experts too")
    p.add_argument("--eval-every", type=int, default=0, help="evaluate, and keep a checkpoint, every N steps (default every epoch)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--fsdp", action="store_true", help="shard the model over the processes (FSDP2)")
    p.add_argument("--deepspeed", help="configuration file of DeepSpeed; its own clipping does not weigh fused units")
    p.add_argument("--gradient-checkpointing", action="store_true", help="compute activations anew in the backward pass")
    p.add_argument("--resume", action="store_true", help="go on with the run that was stopped")
    p.add_argument("--overwrite", action="store_true", help="replace OUT when it is there")
    return defaults(p.parse_args())


def defaults(a: argparse.Namespace) -> argparse.Namespace:
    """Sets what was not given."""
    texts, plain = a.task == "lm", bool(a.layerwise) or a.optimizer == "sgd"
    for name, value in dict(
        max_length=512 if texts else 128, epochs=1 if a.layerwise else 3, batch=8 if texts else 32,
        lr=0.1 if a.optimizer == "sgd" else 2e-5, weight_decay=0.0 if plain else 0.1, clip=0.0 if a.layerwise else 1.0, schedule="constant" if a.layerwise else "linear", warmup=0.0 if a.layerwise else 0.06,
    ).items():  # fmt: skip
        if getattr(a, name) is None:
            setattr(a, name, value)
    return a


def places(a: argparse.Namespace) -> tuple[pathlib.Path, pathlib.Path]:
    """OUT and the folder of its checkpoints."""
    out = pathlib.Path(a.out)
    return out, out.with_name(out.name + ".train")


def last_checkpoint(work: pathlib.Path) -> str | None:
    """The newest checkpoint that was written to its end, None if there is none."""
    whole = [p.parent for p in work.glob("checkpoint-*/trainer_state.json") if p.stat().st_size > 0]
    return str(max(whole, key=lambda p: int(p.name.split("-")[1]))) if whole else None


def prepare(a: argparse.Namespace) -> tuple[Any, Any, Any, Any, str | None]:
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

    if a.teacher and a.layerwise:
        raise ValueError("teacher: expected one of --teacher and --layerwise, found both")
    if not 0 <= a.distill_weight <= 1 or not a.temperature > 0:
        raise ValueError(f"distillation: expected a weight from 0 to 1 and a temperature above 0, found {a.distill_weight:g} and {a.temperature:g}")

    data = read(a.data, a.task, text=a.text, pair=a.text_pair, label=a.label, regression=a.regression)
    tokenizer = transformers.AutoTokenizer.from_pretrained(a.model)
    transformers.set_seed(a.seed)  # of a new head, alike in all processes
    config = configuration(a.model)
    model = opened(a.model, data, config, **(teachers.without_dropout(config) if a.layerwise else {}))
    teacher = None
    if other := a.teacher or a.layerwise:
        theirs = configuration(other)
        if theirs.vocab_size != config.vocab_size:
            raise ValueError(f"{other}: expected a teacher with the student's vocabulary of {config.vocab_size}, found {theirs.vocab_size}")
        if a.layerwise and (theirs.model_type, theirs.hidden_size, theirs.num_hidden_layers) != (config.model_type, config.hidden_size, config.num_hidden_layers):
            raise ValueError(f"{other}: expected the model that {a.model} was made from, found another type, hidden size or number of layers")
        if a.teacher and data.labels and list(theirs.id2label.values()) != data.labels:
            raise ValueError(f"{other}: expected a teacher with the student's labels {', '.join(data.labels)}, found {', '.join(theirs.id2label.values())}")
        teacher = teachers.frozen(opened(other, data, theirs), a.fsdp)
    if a.layerwise:
        teachers.only_fused(model)
    if not a.train_routers:
        for name, p in model.named_parameters():
            if ".router." in name:
                p.requires_grad_(False)
    if a.deepspeed and any(b.step is not None or b.form.get("masked") for b in model.fused_blocks()):
        raise ValueError(f"{a.model}: expected no step multipliers and no masks, which DeepSpeed does not see, found some: train with --fsdp")
    return data, tokenizer, model, teacher, last


def opened(folder: str, data: Data, config: Any, **kwargs: Any) -> Any:
    """A model with the head that the data asks for."""
    if data.documents:
        return from_pretrained(folder, auto=transformers.AutoModelForCausalLM, dtype=torch.float32, **kwargs)
    return from_pretrained(folder, auto=transformers.AutoModelForSequenceClassification, dtype=torch.float32, ignore_mismatched_sizes=True, **data.head(config), **kwargs)


def padded(rows: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    """A batch of documents: what is predicted of padding does not count."""
    longest = max(len(r) for r in rows)
    ids = torch.full((len(rows), longest), pad)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for i, r in enumerate(rows):
        ids[i, : len(r)] = labels[i, : len(r)] = torch.tensor(r)
        mask[i, : len(r)] = 1
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def main() -> None:
    a = arguments()
    try:
        data, tokenizer, model, teacher, last = prepare(a)
    except (ValueError, OSError) as e:
        sys.exit(f"mlpfusion.train: {e}")
    processes = int(os.environ.get("WORLD_SIZE", 1))
    out, work = places(a)
    cpu = not torch.cuda.is_available()
    by_loss = data.documents or bool(a.layerwise)
    when = dict(eval_strategy="steps", eval_steps=a.eval_every, save_strategy="steps", save_steps=a.eval_every) if a.eval_every else dict(eval_strategy="epoch", save_strategy="epoch")
    args = transformers.TrainingArguments(
        output_dir=str(work), seed=a.seed, num_train_epochs=a.epochs, max_steps=a.max_steps or -1,
        per_device_train_batch_size=a.batch // processes // a.accumulate, gradient_accumulation_steps=a.accumulate,
        learning_rate=a.lr, lr_scheduler_type="constant_with_warmup" if a.schedule == "constant" else a.schedule,
        warmup_steps=a.warmup, weight_decay=a.weight_decay, max_grad_norm=a.clip if a.deepspeed else 0.0,
        bf16=a.precision == "bf16", activation_checkpointing=a.gradient_checkpointing and not a.fsdp,
        fsdp=a.fsdp, fsdp_config=dict(version=2, activation_checkpointing=a.gradient_checkpointing) if a.fsdp else None,
        deepspeed=a.deepspeed, use_cpu=cpu, ddp_backend="gloo" if cpu and "WORLD_SIZE" in os.environ else None,
        ddp_find_unused_parameters=any(".router." in n for n, _ in model.named_parameters()),  # experts that see no token
        logging_steps=1, load_best_model_at_end=True, metric_for_best_model="loss" if by_loss else data.metrics[0], greater_is_better=not by_loss, prediction_loss_only=by_loss,
        save_total_limit=2, report_to=[], disable_tqdm=not sys.stderr.isatty(), **when,
    )  # fmt: skip
    sets: list[Any]
    collator: Any
    if data.documents:
        ends = tokenizer.eos_token_id
        sets = [Documents(split, tokenizer, ends, a.max_length) for split in (data.train, data.dev)]
        collator = functools.partial(padded, pad=ends)
    else:
        sets = [Labelled(data, split, tokenizer, a.max_length) for split in (data.train, data.dev)]
        collator = transformers.DataCollatorWithPadding(tokenizer)
    trainer = Trainer(
        model=model, args=args, told=a, teacher=teacher if teacher is None or a.fsdp else teacher.to(args.device),
        train_dataset=sets[0], eval_dataset=sets[1], data_collator=collator,
        compute_metrics=None if by_loss else lambda p: score(data, p.predictions, p.label_ids),
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=last)
    for key in teachers.without_dropout(model.config) if a.layerwise else ():
        setattr(model.config, key, getattr(transformers.AutoConfig.from_pretrained(a.model), key))
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
