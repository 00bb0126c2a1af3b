"""Data sets of texts with labels, from the files that the mlpfusion command reads."""

import csv
import json
from dataclasses import dataclass

import numpy as np
import torch

# Of each task: its classes, none of regression; its metrics, the first is what the best
# weights are chosen by; the names of its columns; and, where files may have no header, the
# number of their columns and the places of text, second text and label.
TASKS = {
    "sst2": (["negative", "positive"], ["accuracy"], ["sentence"], [], ["label"], None),
    "mnli": (["entailment", "neutral", "contradiction"], ["accuracy"], ["premise", "sentence1"], ["hypothesis", "sentence2"], ["gold_label", "label"], None),
    "stsb": ([], ["pearson", "spearman"], ["sentence1"], ["sentence2"], ["score", "label"], (7, 5, 6, 4)),
    "qnli": (["entailment", "not_entailment"], ["accuracy"], ["question"], ["sentence"], ["label"], None),
    "rte": (["entailment", "not_entailment"], ["accuracy"], ["sentence1"], ["sentence2"], ["label"], None),
    "mrpc": (["not_equivalent", "equivalent"], ["f1", "accuracy"], ["#1 String", "sentence1"], ["#2 String", "sentence2"], ["Quality", "label"], None),
    "cola": (["unacceptable", "acceptable"], ["matthews", "accuracy"], ["sentence"], [], ["label"], (4, 3, None, 1)),
    "qqp": (["not_duplicate", "duplicate"], ["f1", "accuracy"], ["question1"], ["question2"], ["is_duplicate", "label"], None),
    "text": (None, ["accuracy"], ["text"], [], ["label"], None),
    "lm": ([], ["loss"], ["text"], [], [], None),
}


@dataclass
class Data:
    labels: list[str]  # none of regression
    metrics: list[str]
    train: list  # rows (text, second text or None, label), or documents
    dev: list
    documents: bool = False  # texts for a language model

    def head(self, config):
        """The arguments of from_pretrained by which a model has a head for the labels, in
        the order in which the model has them."""
        if not self.labels:
            return dict(num_labels=1, problem_type="regression")
        theirs = [config.id2label[i] for i in range(config.num_labels)]
        if sorted(theirs) == sorted(self.labels):
            self.labels = theirs
        names = dict(enumerate(self.labels))
        return dict(id2label=names, label2id={n: i for i, n in names.items()}, num_labels=len(names), problem_type="single_label_classification")

    def number(self, label, place):
        """A label as a model learns it: a class by its name or its number."""
        if not self.labels:
            return float(label)
        if str(label) in self.labels:
            return self.labels.index(str(label))
        if str(label).isdigit() and int(label) < len(self.labels):
            return int(label)
        raise ValueError(f"{place}: expected one of the labels {', '.join(self.labels)}, found {label!r}")


# The usual names of the files of the training and of the dev set.
SPLITS = (["train"], ["dev", "dev_matched", "validation", "validation_matched", "valid", "val"])


def file_of(folder, split, kinds):
    """The file of a split."""
    files = [p for s in split for p in sorted(folder.glob(s + ".*")) if p.suffix in kinds]
    if not files:
        raise ValueError(f"{folder}: expected a file {split[0]}{', '.join(kinds[:-1])} or {kinds[-1]}, found none")
    return files[0]


def documents(folder, split, column):
    """The documents of a file: all of a text file, parted by lines <|endoftext|>, or a column
    of a table."""
    path = file_of(folder, split, (".txt", ".csv", ".jsonl"))
    if path.suffix != ".txt":
        texts = [r[0] for r in rows(path, [column], [], [column], None)]
    else:
        texts, part = [], []
        for line in [*path.read_text(encoding="utf-8-sig").splitlines(keepends=True), "<|endoftext|>"]:
            if line.strip() == "<|endoftext|>":
                texts.append("".join(part))
                part = []
            else:
                part.append(line)
    texts = [t for t in texts if t.strip()]
    if not texts:
        raise ValueError(f"{path}: expected documents, found none")
    return texts


def read(folder, task, text=None, pair=None, label=None, regression=False):
    """Reads a task's train and dev files."""
    if task == "lm":
        return Data([], ["loss"], *(documents(folder, s, text or "text") for s in SPLITS), documents=True)
    labels, metrics, texts, pairs, names, plain = TASKS[task]
    texts, pairs, names = [text] if text else texts, [pair] if pair else pairs, [label] if label else names
    splits = []
    for split in SPLITS:
        splits.append(list(rows(file_of(folder, split, (".tsv", ".csv", ".jsonl")), texts, pairs, names, plain)))
    if regression:
        labels, metrics = [], ["pearson", "spearman"]
    elif labels is None:
        labels = sorted({str(r[2]) for r in splits[0]})
        if len(labels) < 2:
            raise ValueError(f"{folder}: expected two labels or more, found {len(labels)}")
    data = Data(list(labels), metrics, *splits)
    for split, found in zip(("train", "dev"), splits):
        for i, r in enumerate(found):
            data.number(r[2], f"{folder}: {split}: row {i + 1}")
    return data


def rows(path, texts, pairs, labels, plain):
    with open(path, encoding="utf-8-sig", newline="" if path.suffix == ".csv" else None) as f:
        if path.suffix == ".jsonl":
            found = [json.loads(line) for line in f if line.strip()]
        elif path.suffix == ".csv":
            found = list(csv.DictReader(f))
        else:  # quotation marks of TSV files are text
            lines = [line.rstrip("\n").split("\t") for line in f]
            header = lines[0]
            if plain and not any(c in header for c in texts):
                columns, at, second, label = plain
                for line in lines:
                    if len(line) >= columns:
                        yield line[at], None if second is None else line[second], line[label]
                return
            found = [dict(zip(header, line)) for line in lines[1:] if len(line) >= len(header)]
    if not found:
        raise ValueError(f"{path}: expected rows, found none")

    def column(names):
        for n in names:
            if n in found[0]:
                return n
        raise ValueError(f"{path}: expected a column {names[0]!r}, found {', '.join(map(repr, found[0]))}")

    at, second, label = column(texts), column(pairs) if pairs else None, column(labels)
    for r in found:
        yield r[at], None if second is None else r[second], r[label]


class Labelled(torch.utils.data.Dataset):
    """A split, tokenized row by row."""

    def __init__(self, data, split, tokenizer, length):
        self.data, self.split, self.tokenizer, self.length = data, split, tokenizer, length

    def __len__(self):
        return len(self.split)

    def __getitem__(self, i):
        text, pair, label = self.split[i]
        return {**self.tokenizer(text, pair, truncation=True, max_length=self.length), "labels": self.data.number(label, f"row {i + 1}")}


class Documents(torch.utils.data.Dataset):
    """Documents in sequences of so many tokens to predict, the token that ends a text before
    and after each, as the command has them."""

    def __init__(self, texts, tokenizer, end, length):
        self.sequences = []
        for text in texts:
            ids = [end, *tokenizer(text)["input_ids"], end]
            self.sequences += [ids[i : i + length + 1] for i in range(0, len(ids) - 1, length)]

    def __len__(self):
        return len(self.sequences)

    def __getitem__(self, i):
        return self.sequences[i]


def score(data, logits, wanted):
    """The task's metrics of logits (rows × labels)."""
    logits = np.asarray(logits[0] if isinstance(logits, tuple) else logits)
    said = logits[:, 0] if not data.labels else logits.argmax(-1)
    return {m: float(METRICS[m](said, np.asarray(wanted))) for m in data.metrics}


def ranks(x):
    _, at, count = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[at]


def correlation(a, b):
    return np.corrcoef(a, b)[0, 1] if np.std(a) > 0 and np.std(b) > 0 else 0.0


METRICS = {
    "accuracy": lambda said, wanted: np.mean(said == wanted),
    "f1": lambda said, wanted: 2 * np.sum((said == 1) & (wanted == 1)) / max(1, np.sum(said == 1) + np.sum(wanted == 1)),
    "matthews": correlation,  # of two classes it is their correlation
    "pearson": correlation,
    "spearman": lambda said, wanted: correlation(ranks(said), ranks(wanted)),
}
