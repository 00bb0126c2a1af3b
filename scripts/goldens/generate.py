"""Goldens of package generate: what transformers' generate writes with the tiny
checkpoints of model/testdata.

    python scripts/goldens/generate.py

Writes generate/testdata/golden.json: model, prompt, options and the tokens after
the prompt (in an encoder-decoder after the decoder's first), with a beam
search's score.
"""

import json
import pathlib
import random

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Each without a stop token, and with tokens that the greedy text has.
WAYS = [
    dict(),
    dict(no_repeat_ngram_size=2),
    dict(num_beams=5, length_penalty=0.8, no_repeat_ngram_size=4),
    dict(num_beams=5, length_penalty=0.8),
    dict(num_beams=3, length_penalty=1.0, early_stopping=True),
    dict(num_beams=4, length_penalty=-0.5, early_stopping="never"),
    dict(num_beams=4, length_penalty=2.0, early_stopping="never"),
    dict(num_beams=2, length_penalty=0.0),
    dict(repetition_penalty=1.4, min_new_tokens=9),
    dict(num_beams=3, length_penalty=1.0, repetition_penalty=1.3, min_new_tokens=6, no_repeat_ngram_size=3),
]


def main():
    torch.set_num_threads(1)
    cases = []
    for name in "gpt2", "gpt2-options", "t5", "t5-gated", "switch", "llama", "gemma3":
        path = ROOT / "model" / "testdata" / name
        config = AutoConfig.from_pretrained(path)
        seq2seq = config.is_encoder_decoder
        model = (AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM).from_pretrained(path).eval()
        # transformers makes its cache for as many layers as the encoder has; where
        # the decoder has more it must do without.
        model.generation_config.use_cache = not seq2seq or config.num_decoder_layers <= config.num_layers
        r = random.Random(name)
        for length in 1, 4, 11:
            prompt = [r.randrange(3, config.vocab_size) for _ in range(length)]
            ids = torch.tensor([prompt])
            free = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
            after = free[0, 1 if seq2seq else length :].tolist()
            for way in WAYS:
                for stop in [], [after[7]], [after[4], r.randrange(config.vocab_size)]:
                    out = model.generate(
                        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0,
                        eos_token_id=stop or None, return_dict_in_generate=True, output_scores=True, **way,
                    )
                    tokens = out.sequences[0, 1 if seq2seq else length :].tolist()
                    ends = [i for i, t in enumerate(tokens) if t in stop]
                    stopped = bool(ends)
                    if stopped:  # what follows is padding
                        tokens = tokens[: ends[0]]
                    case = dict(model=name, prompt=prompt, stop=stop, tokens=tokens, stopped=stopped, options=way)
                    if way.get("num_beams", 1) > 1:
                        case["score"] = out.sequences_scores[0].item()
                    cases.append(case)
    folder = ROOT / "generate" / "testdata"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "golden.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]\n")


if __name__ == "__main__":
    main()
