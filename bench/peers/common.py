"""What the peers share: data, models and the line protocol.

A peer is a process that reads one JSON request a line on standard input and
answers each with one JSON line on standard output, so that a driver alternates
it with another engine in one run. A request that fails answers {"error": …}.

Environment: MLPFUSION_MINILM, the folder of all-MiniLM-L6-v2; MLPFUSION_DATA,
the folder of data sets (default ../shared/data beside the project).
"""

import json
import os
import pathlib
import sys
import traceback

# Some machines pin OpenBLAS to a core type for other work: the peer is to
# choose its best kernels itself. Before anything loads a BLAS.
for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(variable, None)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # no threads besides the measured ones

import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification, BertTokenizerFast
from transformers import SwitchTransformersConfig, SwitchTransformersModel, T5Config, T5ForSequenceClassification

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("MLPFUSION_DATA") or ROOT.parent / "shared" / "data")
MAX_LENGTH = 512


def minilm():
    if not os.environ.get("MLPFUSION_MINILM"):
        raise RuntimeError("set MLPFUSION_MINILM to the folder of all-MiniLM-L6-v2")
    return os.environ["MLPFUSION_MINILM"]


def sst2(split):
    """Sentences and labels, in the order of the file."""
    lines = (DATA / "SST-2" / f"{split}.tsv").read_text(encoding="utf-8").split("\n")[1:]
    rows = [line.rsplit("\t", 1) for line in lines if line]
    return [sentence for sentence, _ in rows], [int(label) for _, label in rows]


def tokenize(model, sentences):
    """Lists of ids, by the model's own tokenizer."""
    if model in ("bert-base", "t5-base") or model.startswith("switch"):
        tokenizer = BertTokenizerFast(str(DATA / "tokenizers" / "bert-base-uncased" / "vocab.txt"))
    else:
        tokenizer = AutoTokenizer.from_pretrained(minilm() if model == "minilm" else model)
    return tokenizer(sentences, truncation=True, max_length=MAX_LENGTH)["input_ids"]


def load(model, ffn=None, attn="sdpa", seed=0, labels=2):
    """A classifier: minilm (new head), bert-base, t5-base, switch, switch-6 or
    switch-12 (random weights) or a folder.
    With ffn, every MLP keeps its first ffn units: right for timing only."""
    torch.manual_seed(seed)
    if model.startswith("switch"):
        return SwitchLabel(int(model[7:] or 4))
    if model == "t5-base":
        shape = dict(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
        return T5ForSequenceClassification._from_config(T5Config(**shape, decoder_start_token_id=0, eos_token_id=102, num_labels=labels), attn_implementation=attn)
    if model == "bert-base":
        net = BertForSequenceClassification._from_config(BertConfig(num_labels=labels), attn_implementation=attn)
    else:
        path = minilm() if model == "minilm" else model
        net = AutoModelForSequenceClassification.from_pretrained(path, num_labels=labels, attn_implementation=attn, dtype=torch.float32)
    if ffn:
        for layer in net.base_model.encoder.layer:
            layer.intermediate.dense = narrowed(layer.intermediate.dense, slice(ffn), slice(None))
            layer.output.dense = narrowed(layer.output.dense, slice(None), slice(ffn))
    return net


class SwitchLabel(torch.nn.Module):
    """google/switch-base-8 with some of its 12 layers in encoder and decoder, a label
    head on the decoder's one token, routers frozen: as bench/internal/shapes has it."""

    def __init__(self, layers):
        super().__init__()
        shape = dict(d_model=768, d_kv=64, d_ff=3072, num_layers=layers, num_decoder_layers=layers, num_heads=12)
        config = SwitchTransformersConfig(**shape, num_experts=8, num_sparse_encoder_layers=layers // 2, num_sparse_decoder_layers=layers // 2)
        self.transformer = SwitchTransformersModel(config)
        self.dense, self.out = torch.nn.Linear(768, 768), torch.nn.Linear(768, 2)
        for name, p in self.named_parameters():
            p.requires_grad = ".router." not in name

    def set_attn_implementation(self, name):
        """transformers has the position bias in its own attention only."""

    def forward(self, input_ids, attention_mask, labels):
        start = torch.zeros(len(input_ids), 1, dtype=torch.long)
        state = self.transformer(input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=start, use_cache=False).last_hidden_state
        logits = self.out(torch.tanh(self.dense(state[:, 0])))
        return transformers.modeling_outputs.SequenceClassifierOutput(loss=torch.nn.functional.cross_entropy(logits, labels))


def narrowed(linear, out, into):
    weight, bias = linear.weight.detach()[out, into], linear.bias.detach()[out]
    small = torch.nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        small.weight.copy_(weight)
        small.bias.copy_(bias)
    return small


def pad(rows, length=None, pad_id=0):
    """(ids, mask) of lists of ids, padded to the longest or to length. As
    DataCollatorWithPadding does, without its cost in Python."""
    length = length or max(len(r) for r in rows)
    ids = torch.full((len(rows), length), pad_id)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row[:length])
        mask[i, : len(row)] = 1
    return ids, mask


def adamw(model, lr):
    """The paper's AdamW: no decay on biases and LayerNorms."""
    plain = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n or "layer_norm" in n]
    chosen = {id(p) for p in plain}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [dict(params=rest, weight_decay=0.1), dict(params=plain, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-6, fused=True)


def reset_peak():
    """Lets the peak resident size start again at the present one (Linux)."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_mb():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def versions(*more):
    return {m.__name__: m.__version__ for m in (torch, transformers, *more)} | {"cpu": torch.backends.cpu.get_cpu_capability()}


def serve(handle):
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            answer = handle(json.loads(line))
        except Exception as e:  # the driver decides what to do about it
            traceback.print_exc()
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), flush=True)
