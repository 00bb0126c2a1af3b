"""Data sets of texts with labels, from the files that the mlpfusion command reads."""

import csv
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# Of each task: its classes, none of regression; its metrics, the first is what the best
# weights are chosen by; the names of its columns; and, where files may have no header, the
# number of their columns and the places of text, second text and label.
TASKS: dict[str, tuple[list[str] | None, list[str], list[str], list[str], list[str], tuple[int, int, int | None, int] | None]] = {
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
    train: list[Any]  # rows (text, second text or None, label), or documents
    dev: list[Any]
    documents: bool = False  # texts for a language model

    def head(self, config: Any) -> dict[str, Any]:
        """The arguments of from_pretrained by which a model has a head for the labels, in
        the order in which the model has them."""
        if not self.labels:
            return dict(num_labels=1, problem_type="regression")
        theirs = [config.id2label[i] for i in range(config.num_labels)]
        if sorted(theirs) == sorted(self.labels):
            self.labels = theirs
        names = dict(enumerate(self.labels))
        return dict(id2label=names, label2id={n: i for i, n in names.items()}, num_labels=len(names), problem_type="single_label_classification")

    def number(self, label: Any, place: str) -> int | float:
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


def file_of(folder: pathlib.Path, split: Sequence[str], kinds: Sequence[str]) -> pathlib.Path:
    """The file of a split."""
    files = [p for s in split for p in sorted(folder.glob(s + ".*")) if p.suffix in kinds]
    if not files:
        raise ValueError(f"{folder}: expected a file {split[0]}{', '.join(kinds[:-1])} or {kinds[-1]}, found none")
    return files[0]


def documents(folder: pathlib.Path, split: Sequence[str], column: str) -> list[str]:
    """The documents of a file: all of a text file, parted by lines <|endoftext|>, or a column
    of a table."""
    path = file_of(folder, split, (".txt", ".csv", ".jsonl"))
    if path.suffix != ".txt":
        texts = [r[0] for r in rows(path, [column], [], [column], None)]
    else:
        texts, part = [], list[str]()
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


def read(folder: pathlib.Path, task: str, text: str | None = None, pair: str | None = None, label: str | None = None, regression: bool = False) -> Data:
    """Reads a task's train and dev files."""
    if task == "lm":
        train, dev = (documents(folder, s, text or "text") for s in SPLITS)
        return Data([], ["loss"], train, dev, documents=True)
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
    data = Data(list(labels), metrics, splits[0], splits[1])
    for name, found in zip(("train", "dev"), splits):
        for i, r in enumerate(found):
            data.number(r[2], f"{folder}: {name}: row {i + 1}")
    return data


def rows(
    path: pathlib.Path, texts: Sequence[str], pairs: Sequence[str], labels: Sequence[str], plain: tuple[int, int, int | None, int] | None
) -> Iterator[tuple[str, str | None, Any]]:
    with open(path, encoding="utf-8-sig", newline="" if path.suffix == ".csv" else None) as f:
        if path.suffix == ".jsonl":
            found = [json.loads(line) for line in f if line.strip()]
        elif path.suffix == ".csv":
            found = list(csv.DictReader(f))
        else:  # quotation marks of TSV files are text
            lines = [line.rstrip("\n").split("\t") for line in f]
            header = lines[0]
            if plain and not any(c in header for c in texts):
                columns, first, other, last = plain
                for line in lines:
                    if len(line) >= columns:
                        yield line[first], None if other is None else line[other], line[last]
                return
            found = [dict(zip(header, line)) for line in lines[1:] if len(line) >= len(header)]
    if not found:
        raise ValueError(f"{path}: expected rows, found none")

    def column(names: Sequence[str]) -> str:
        for n in names:
            if n in found[0]:
                return n
        raise ValueError(f"{path}: expected a column {names[0]!r}, found {', '.join(map(repr, found[0]))}")

    at, second, label = column(texts), column(pairs) if pairs else None, column(labels)
    for r in found:
        yield r[at], None if second is None else r[second], r[label]


class Labelled(torch.utils.data.Dataset[dict[str, Any]]):
    """A split, tokenized row by row."""

    def __init__(self, data: Data, split: list[Any], tokenizer: Any, length: int) -> None:
        self.data, self.split, self.tokenizer, self.length = data, split, tokenizer, length

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> dict[str, Any]:
        text, pair, label = self.split[i]
        return {**self.tokenizer(text, pair, truncation=True, max_length=self.length), "labels": self.data.number(label, f"row {i + 1}")}


class Documents(torch.utils.data.Dataset[list[int]]):
    """Documents in sequences of this many tokens to predict, the token that ends a text before
    and after each, as the command has them."""

    def __init__(self, texts: list[str], tokenizer: Any, end: int, length: int) -> None:
        self.sequences: list[list[int]] = []
        for text in texts:
            ids = [end, *tokenizer(text)["input_ids"], end]
            self.sequences += [ids[i : i + length + 1] for i in range(0, len(ids) - 1, length)]

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, i: int) -> list[int]:
        return self.sequences[i]


def score(data: Data, logits: Any, wanted: Any) -> dict[str, float]:
    """The task's metrics of logits (rows × labels)."""
    logits = np.asarray(logits[0] if isinstance(logits, tuple) else logits)
    said = logits[:, 0] if not data.labels else logits.argmax(-1)
    return {m: float(METRICS[m](said, np.asarray(wanted))) for m in data.metrics}


def ranks(x: Any) -> Any:
    _, at, count = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[at]


def correlation(a: Any, b: Any) -> Any:
    return np.corrcoef(a, b)[0, 1] if np.std(a) > 0 and np.std(b) > 0 else 0.0


METRICS: dict[str, Callable[[Any, Any], Any]] = {
    "accuracy": lambda said, wanted: np.mean(said == wanted),
    "f1": lambda said, wanted: 2 * np.sum((said == 1) & (wanted == 1)) / max(1, np.sum(said == 1) + np.sum(wanted == 1)),
    "matthews": correlation,  # of two classes it is their correlation
    "pearson": correlation,
    "spearman": lambda said, wanted: correlation(ranks(said), ranks(wanted)),
}
