"""Fine-tunes MiniLM on SST-2 with PyTorch: the reference for what our engine
must reach. Prints one JSON line.

    python bench/peers/accuracy.py --seed 0                 the original
    python bench/peers/accuracy.py --seed 0 --width 384     the last 4 MLPs fused

Training set: the first --examples rows of train.tsv shuffled by
numpy.random.default_rng(seed).permutation, so each seed sees another sample, as
it sees another head and other dropout; one epoch in that order, batches of 32.
AdamW, lr 1e-4, warm-up 6 %, then linearly to 0; betas (0.9, 0.98), eps 1e-6,
weight decay 0.1 but none on biases and LayerNorms; gradient norm clipped to 1;
dropout as in the model's config. Evaluated once, at the end, on the 872 dev
sentences. Fused: k-means (scikit-learn, one start) of each block's sub-MLPs,
y = W2·(P·gelu(W1·x + b1)) + b2 of the centroids, P fixed.
"""

import argparse
import json
import time

from common import adamw, load, pad, peak_mb, sst2, tokenize, versions

import numpy as np
import torch
from transformers import get_linear_schedule_with_warmup


class Scaled(torch.nn.Module):
    """The intermediate module of a fused block: P·gelu(W1·x + b1)."""

    def __init__(self, dense, counts):
        super().__init__()
        self.dense = dense
        self.register_buffer("p", counts)

    def forward(self, x):
        return self.p * torch.nn.functional.gelu(self.dense(x))


def fuse(layer, width, seed):
    from sklearn.cluster import KMeans

    up, down = layer.intermediate.dense, layer.output.dense
    hidden = up.in_features
    x = torch.cat([up.weight, up.bias[:, None], down.weight.T], 1).detach().numpy()
    means = KMeans(width, n_init=1, random_state=seed).fit(x)
    centroids = torch.from_numpy(means.cluster_centers_).float()
    counts = torch.from_numpy(np.bincount(means.labels_, minlength=width)).float()
    with torch.no_grad():
        small_up, small_down = torch.nn.Linear(hidden, width), torch.nn.Linear(width, hidden)
        small_up.weight.copy_(centroids[:, :hidden])
        small_up.bias.copy_(centroids[:, hidden])
        small_down.weight.copy_(centroids[:, hidden + 1 :].T)
        small_down.bias.copy_(down.bias)
    layer.intermediate, layer.output.dense = Scaled(small_up, counts), small_down


def accuracy(model, rows, labels):
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    hits = 0
    with torch.inference_mode():
        for start in range(0, len(order), 32):
            chosen = order[start : start + 32]
            ids, mask = pad([rows[i] for i in chosen])
            predicted = model.eval()(input_ids=ids, attention_mask=mask).logits.argmax(1)
            hits += (predicted == torch.tensor([labels[i] for i in chosen])).sum().item()
    return hits / len(rows)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--examples", type=int, default=8000)
    parser.add_argument("--steps", type=int, help="stop after N steps (the schedule too)")
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--width", type=int, help="fuse the last two thirds of the MLPs to this width")
    parser.add_argument("--prec", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    model = load("minilm", seed=args.seed)
    if args.width:
        layers = model.base_model.encoder.layer
        for layer in layers[len(layers) // 3 :]:
            fuse(layer, args.width, args.seed)
    sentences, labels = sst2("train")
    chosen = np.random.default_rng(args.seed).permutation(len(sentences))[: args.examples].tolist()
    rows = tokenize("minilm", [sentences[i] for i in chosen])
    labels = [labels[i] for i in chosen]

    batches = [range(s, min(s + 32, len(rows))) for s in range(0, len(rows), 32)][: args.steps]
    optimizer = adamw(model, args.lr)
    schedule = get_linear_schedule_with_warmup(optimizer, round(0.06 * len(batches)), len(batches))
    torch.manual_seed(args.seed)
    losses, start = [], time.perf_counter()
    model.train()
    for batch in batches:
        ids, mask = pad([rows[i] for i in batch])
        with torch.autocast("cpu", torch.bfloat16, enabled=args.prec == "bf16"):
            loss = model(input_ids=ids, attention_mask=mask, labels=torch.tensor([labels[i] for i in batch])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    seconds = time.perf_counter() - start
    dev, gold = sst2("dev")
    result = dict(accuracy=accuracy(model, tokenize("minilm", dev), gold), final_loss=float(np.mean(losses[-20:])), steps=len(batches))
    print(json.dumps(vars(args) | result | dict(train_seconds=seconds, peak_rss_mb=peak_mb(), versions=versions())))


if __name__ == "__main__":
    main()
