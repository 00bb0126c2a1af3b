"""What PyTorch computes with the real MiniLM, for TestMiniLM of train/:

    python scripts/peers/minilm.py MINILM OUT

OUT/golden.safetensors holds, named as scripts/goldens/model.py does: head.NAME,
the values of a new classifier; two batches a and b of sentences; for batch a the
hidden states, the logits, the loss and every parameter's gradient (dropout off, in
float64); losses: those of ten AdamW steps on the two batches in turn, from the
same start, at learning rate 1e-4 and otherwise with the settings of PaperOptimizer.
"""

import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "goldens"))

from model import loss_of, write  # noqa: E402

BATCHES = [
    [
        ("the story is thin , but its people stay with you", 1),
        ("two hours that feel like six .", 0),
        ("a warm , funny and unhurried portrait of a family", 1),
        ("there is not one honest moment in this loud and empty sequel to a film nobody asked for", 0),
    ],
    [
        ("beautifully shot and barely written", 0),
        ("it 's a small miracle of timing .", 1),
        ("dull !", 0),
        ("whatever it lacks in polish , it makes up for in nerve , wit and the performances of its two leads", 1),
    ],
]


def tokens(tokenizer, batch):
    rows = tokenizer([text for text, _ in batch])["input_ids"]
    ends = torch.tensor([len(r) for r in rows]).cumsum(0)
    return dict(ids=torch.tensor(sum(rows, [])), types=torch.zeros(ends[-1], dtype=torch.long),
                offsets=torch.tensor([0, *ends]), labels=torch.tensor([label for _, label in batch]))


def main(source, out):
    torch.set_num_threads(2)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    data = [tokens(AutoTokenizer.from_pretrained(source), b) for b in BATCHES]
    model = AutoModelForSequenceClassification.from_pretrained(source, attn_implementation="eager").eval()
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.classifier.parameters():
            p.copy_(0.1 * torch.randn(p.shape, generator=g))
    tensors = {f"{which}.{key}": value for which, d in zip("ab", data) for key, value in d.items()}
    tensors |= {f"head.{name}": p.detach().clone() for name, p in model.named_parameters() if "classifier" in name}
    model.double()
    result, mask = loss_of(model, data[0])
    result.loss.backward()
    tensors |= {f"hidden.{i}": h[mask] for i, h in enumerate(result.hidden_states)}
    tensors |= dict(logits=result.logits, loss=result.loss)
    tensors |= {f"grad.{name}": p.grad.float() for name, p in model.named_parameters()}

    plain = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
    others = [p for n, p in model.named_parameters() if not (n.endswith("bias") or "LayerNorm" in n)]
    optimizer = torch.optim.AdamW([dict(params=others, weight_decay=0.1), dict(params=plain, weight_decay=0.0)], lr=1e-4, betas=(0.9, 0.98), eps=1e-6)
    losses = []
    for step in range(10):
        loss = loss_of(model, data[step % 2])[0].loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    tensors["losses"] = torch.tensor(losses)
    out.mkdir(parents=True, exist_ok=True)
    write(tensors, out)


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
