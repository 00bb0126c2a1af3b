"""Writes the goldens of T5 and Switch Transformers in model/testdata: tiny random
checkpoints, saved by transformers itself, and what PyTorch computes with them.

    python scripts/goldens/t5.py            writes them again
    python scripts/goldens/t5.py --check    compares with what is committed

As model.py says, but hidden.0 … are the encoder's states (after the embeddings
and each layer) and then the decoder's (after each layer), those after a stack's
last layer normalised; and of a language model a batch is
    a.ids, a.offsets                    what the encoder reads
    a.decoder_ids, a.decoder_offsets    what the decoder reads: targets, shifted
    a.targets                           the id to be predicted at each of them
and instead of a classifier's logits there are
    logits              for every token of the decoder
Of a mixture of experts, in the order of the layers,
    expert.0 …          each token's expert; −1: dropped, its expert being full
and, where the routers' losses are part of the loss,
    z_losses, balance_losses    of encoder and decoder
"""

import json

import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    SwitchTransformersModel,
    T5Config,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
)
from transformers.models.switch_transformers.modeling_switch_transformers import load_balancing_loss_func, router_z_loss_func

import model as classifiers
from common import ROOT, main

NAMES = ["t5", "t5-gated", "t5-untied", "t5-label", "t5-fused", "switch", "switch-label", "switch-fused"]

SMALL = dict(vocab_size=96, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=3, dropout_rate=0.0, decoder_start_token_id=0)
SMALL |= dict(relative_attention_num_buckets=8, relative_attention_max_distance=16)
SPARSE = SMALL | dict(num_layers=4, num_decoder_layers=4, num_sparse_encoder_layers=2, num_sparse_decoder_layers=2)
SPARSE |= dict(num_experts=4, expert_capacity=3, router_jitter_noise=0.0)


def eager(cls, config, seed):
    model = classifiers.randomise(cls._from_config(config, attn_implementation="eager"), seed)
    for module in model.modules():
        if hasattr(module, "expert_capacity"):
            module.dtype = torch.float64  # of the router
    return model


def batch(lengths, targets, low, high, seed):
    """Texts that end with 1, and of each the text to be predicted, which ends so too."""
    g = torch.Generator().manual_seed(seed)

    def texts(lengths):
        return [torch.cat([torch.randint(low, high, (n - 1,), generator=g), torch.tensor([1])]) for n in lengths]

    def offsets(lengths):
        return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])

    read, said = texts(lengths), texts(targets)
    data = dict(ids=torch.cat(read), offsets=offsets(lengths))
    data |= dict(decoder_ids=torch.cat([torch.cat([torch.tensor([0]), t[:-1]]) for t in said]), decoder_offsets=offsets(targets), targets=torch.cat(said))
    return data


def batches(equal=False):
    if equal:  # so that no padding enters the routers' losses
        return batch([9] * 5, [4] * 5, 4, 60, 1), batch([7] * 4, [6] * 4, 30, 80, 2)
    return batch([20, 3, 11, 7, 5], [4, 1, 6, 2, 3], 4, 60, 1), batch([4, 13, 6, 9], [2, 5, 1, 3], 30, 80, 2)


def label_batches():
    """Texts with labels; every text ends with 1."""
    labelled = []
    for data in batches():
        labelled.append(dict(ids=data["ids"], types=torch.zeros_like(data["ids"]), offsets=data["offsets"], labels=torch.arange(len(data["offsets"]) - 1) % 3))
    return labelled


def padded(data, ids, offsets):
    rows = [slice(s, e) for s, e in zip(data[offsets][:-1], data[offsets][1:])]
    pad = torch.nn.utils.rnn.pad_sequence
    return pad([data[ids][r] for r in rows], True, 0), pad([torch.ones_like(data[ids][r]) for r in rows], True)


def run(model, data, **more):
    ids, mask = padded(data, "ids", "offsets")
    if "targets" in data:
        decoder, decoder_mask = padded(data, "decoder_ids", "decoder_offsets")
        more |= dict(decoder_input_ids=decoder, decoder_attention_mask=decoder_mask)
        labels, _ = padded(data, "targets", "decoder_offsets")
        labels = labels.masked_fill(decoder_mask == 0, -100)
    else:
        decoder_mask, labels = mask, data["labels"]
    return model(input_ids=ids, attention_mask=mask, labels=labels, **more), mask.bool(), decoder_mask.bool()


def loss_of(model, data):
    more = dict(output_router_logits=True) if getattr(model, "router_losses", False) else {}
    return run(model, data, **more)[0].loss


class Watch:
    """Records hidden states and routers' choices of one forward pass."""

    def __init__(self, model):
        self.states, self.choices, self.hooks = [], [], []
        body = getattr(model, "transformer", model)
        for stack in (body.encoder, body.decoder):
            modules = [stack.embed_tokens] if stack is body.encoder else []
            modules += [*stack.block[:-1], stack.final_layer_norm]
            for module in modules:
                self.hook(module, lambda m, i, o: self.states.append(o[0] if isinstance(o, tuple) else o))
        for module in model.modules():
            if hasattr(module, "expert_capacity"):
                self.hook(module, lambda m, i, o: self.choices.append(torch.where(o[0].sum(-1) > 0, o[0].argmax(-1), -1)))

    def hook(self, module, f):
        self.hooks.append(module.register_forward_hook(f))

    def close(self):
        for h in self.hooks:
            h.remove()


def golden(model, path, data, steps=True, keep=()):
    model.double()
    watch = Watch(model)
    out, mask, decoder_mask = run(model, data[0])
    watch.close()
    g = {f"{which}.{key}": value for which, d in zip("ab", data) for key, value in d.items()}
    for i, h in enumerate(watch.states):
        inside = mask if i <= model.config.num_layers else decoder_mask
        g[f"hidden.{i}"] = h[inside[:, : h.shape[1]]]
    for i, choice in enumerate(watch.choices):
        inside = mask if i < len(watch.choices) // 2 else decoder_mask
        g[f"expert.{i}"] = choice[inside[:, : choice.shape[1]]]
    if getattr(model, "router_losses", False):
        both = run(model, data[0], output_router_logits=True)[0]
        g["z_losses"] = torch.stack([both.encoder_z_loss, both.decoder_z_loss])
        g["balance_losses"] = torch.stack([both.encoder_aux_loss, both.decoder_aux_loss])
    loss = loss_of(model, data[0])
    loss.backward()
    logits = out.logits[decoder_mask] if "targets" in data[0] else out.logits
    g |= dict(logits=logits, loss=loss)
    g |= {f"grad.{name}": p.grad.clone() for name, p in classifiers.named(model) if p.grad is not None}
    if steps:
        g["losses"], g["norms"] = classifiers.train(model, data, loss_of)
        g |= {f"final.{name}": p for name, p in classifiers.named(model) if any(k in name for k in keep)}
    classifiers.write(g, path)


class LabelHead(torch.nn.Module):
    """The head that the project gives Switch Transformers, for which transformers
    has no such class: T5's, on the state of the decoder's one token, the start."""

    def __init__(self, config):
        super().__init__()
        self.dense = torch.nn.Linear(config.d_model, config.d_model)
        self.out_proj = torch.nn.Linear(config.d_model, 3)

    def forward(self, x):
        return self.out_proj(torch.tanh(self.dense(x)))


class SwitchLabel(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = SwitchTransformersModel._from_config(config, attn_implementation="eager")
        self.classification_head = LabelHead(config)
        self.rename = lambda name: name.removeprefix("transformer.")

    @classmethod
    def _from_config(cls, config, **_):
        return cls(config)

    def forward(self, input_ids, attention_mask, labels):
        start = torch.zeros(len(input_ids), 1, dtype=torch.long)
        out = self.transformer(input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=start)
        logits = self.classification_head(out.last_hidden_state[:, 0])
        loss = torch.nn.functional.cross_entropy(logits, labels)
        return transformers.modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits)


def save_ours(model, path, architecture, layers=None, scales=()):
    """A checkpoint with a head or with blocks that are the project's own."""
    model.config.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    config |= dict(architectures=[architecture], dtype="float32")
    if "ForSequenceClassification" in architecture:
        config |= dict(id2label={str(i): f"LABEL_{i}" for i in range(3)}, label2id={f"LABEL_{i}": i for i in range(3)})
    if layers:
        config["mlpfusion"] = dict(version=1, method="fusion", scale="keep", layers=layers, seed=0)
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {name: p.detach() for name, p in classifiers.named(model)} | {name: p.float() for name, p in scales}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


class P(torch.nn.Module):
    """The diagonal of cluster sizes, applied to what the activation gives."""

    def __init__(self, act, p):
        super().__init__()
        self.act, self.p = act, p

    def forward(self, x):
        return self.p * self.act(x)


def narrow(model, name, width, seed):
    """Replaces the MLP of that name by its clusters' centroids and P."""
    mlp = model.get_submodule(name)
    g = torch.Generator().manual_seed(seed)
    members = [[k] for k in range(width)]  # no cluster is empty
    for unit, k in zip(range(width, 40), torch.randint(0, width, (40 - width,), generator=g).tolist()):
        members[k].append(unit)
    p = torch.tensor([float(len(m)) for m in members], dtype=torch.float64)
    rename = getattr(model, "rename", lambda name: name)
    if not hasattr(model, "scales"):
        model.scales, model.fused_layers, model.fused_scales = {}, {}, []
    block = rename(name)
    with torch.no_grad():
        for part in ("wi", "wi_0", "wi_1"):
            if hasattr(mlp, part):
                linear = getattr(mlp, part)
                linear.weight = torch.nn.Parameter(torch.stack([linear.weight[m].mean(0) for m in members]))
                model.scales[f"{block}.{part}.weight"] = p[:, None]
        mlp.wo.weight = torch.nn.Parameter(torch.stack([mlp.wo.weight[:, m].mean(1) for m in members], 1))
        model.scales[f"{block}.wo.weight"] = p[None, :]
    mlp.act = P(mlp.act, p)
    model.fused_layers[block] = dict(width=width)
    model.fused_scales.append((block + ".mlp_scale", p))


def write_all(out):
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for name in NAMES:
        (out / name).mkdir(parents=True)
    keep = ["shared", "relative_attention_bias", "block.1.layer.1.DenseReluDense", "decoder.block.1.layer.0.SelfAttention.k", "EncDecAttention.v", "encoder.final_layer_norm"]
    generate = T5ForConditionalGeneration
    model = eager(generate, T5Config(**SMALL), 50)
    model.save_pretrained(out / "t5")
    golden(model, out / "t5", batches(), keep=keep)
    gated = T5Config(**SMALL, feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_decoder_layers=3)
    model = eager(generate, gated, 51)
    model.save_pretrained(out / "t5-gated")
    golden(model, out / "t5-gated", batches(), keep=keep)
    # As the published v1.1 checkpoints are: a head with a matrix of its own.
    model = eager(generate, gated, 52)
    model.lm_head.weight = torch.nn.Parameter(0.2 * torch.randn(96, 24, generator=torch.Generator().manual_seed(53)))
    model.save_pretrained(out / "t5-untied")
    again = generate.from_pretrained(out / "t5-untied", attn_implementation="eager").eval()
    assert again.lm_head.weight is not again.shared.weight
    golden(again, out / "t5-untied", batches(), steps=False)
    model = eager(T5ForSequenceClassification, T5Config(**SMALL, num_labels=3), 54)
    model.save_pretrained(out / "t5-label")
    golden(model, out / "t5-label", label_batches(), keep=[*keep, "classification_head"])
    model = eager(generate, gated, 55)
    narrow(model, "encoder.block.1.layer.1.DenseReluDense", 12, 56)
    narrow(model, "decoder.block.2.layer.2.DenseReluDense", 20, 57)
    save_ours(model, out / "t5-fused", "T5ForConditionalGeneration", model.fused_layers, model.fused_scales)
    golden(model, out / "t5-fused", batches(), keep=[*keep, "decoder.block.2.layer.2"])

    keep = ["shared", "block.1.layer.1.mlp", "block.3.layer.2.mlp", "block.2.layer.1.mlp", "classification_head"]
    model = eager(SwitchTransformersForConditionalGeneration, SwitchTransformersConfig(**SPARSE), 58)
    model.router_losses = True
    model.save_pretrained(out / "switch")
    golden(model, out / "switch", batches(equal=True), keep=keep)
    model = eager(SwitchLabel, SwitchTransformersConfig(**SPARSE, router_bias=True), 59)
    save_ours(model, out / "switch-label", "SwitchTransformersForSequenceClassification")
    golden(model, out / "switch-label", label_batches(), keep=keep)
    model = eager(SwitchLabel, SwitchTransformersConfig(**SPARSE), 60)
    for stack, last in (("encoder", 1), ("decoder", 2)):
        for layer in (1, 3):
            for e in range(3 if layer == 3 else 4):  # one expert stays as it is
                narrow(model, f"transformer.{stack}.block.{layer}.layer.{last}.mlp.experts.expert_{e}", 8 + e, 61 + e)
    save_ours(model, out / "switch-fused", "SwitchTransformersForSequenceClassification", model.fused_layers, model.fused_scales)
    golden(model, out / "switch-fused", label_batches(), keep=keep)


if __name__ == "__main__":
    main(write_all, ROOT / "model" / "testdata", NAMES)
