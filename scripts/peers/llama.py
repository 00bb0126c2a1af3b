"""Compares what a model writes in llama.cpp with what it writes here.

    python scripts/peers/llama.py GGUF MODEL PROMPTS OURS

GGUF was converted from MODEL, a directory; PROMPTS is a file of prompts, one a line, OURS
what `mlpfusion generate --greedy --json` wrote to them. The prompts' ids must be those of
`tokenizers`, and greedy decoding must give the same text.
"""

import json
import sys

import llama_cpp
import tokenizers

gguf, model, prompts, ours = sys.argv[1:]
llm = llama_cpp.Llama(gguf, n_ctx=256, verbose=False)
tokenizer = tokenizers.Tokenizer.from_file(f"{model}/tokenizer.json")
written = 0
for prompt, line in zip(open(prompts), open(ours), strict=True):
    prompt, want = prompt.rstrip("\n"), json.loads(line)
    ids = llm.tokenize(prompt.encode(), add_bos=False, special=True)
    if ids != tokenizer.encode(prompt).ids:
        sys.exit(f"{prompt!r}: llama.cpp reads {ids}, tokenizers {tokenizer.encode(prompt).ids}")
    new = []
    for token in llm.generate(ids, temp=0.0, repeat_penalty=1.0):
        if len(new) == want["tokens"]:
            break
        new.append(token)
    if (text := tokenizer.decode(new)) != want["text"]:
        sys.exit(f"{prompt!r}: llama.cpp writes {text!r}, we write {want['text']!r}")
    written += len(new)
if written < 32:
    sys.exit(f"expected at least 32 tokens, found {written}")
widths = llm.metadata.get("llama.feed_forward_length")
print(f"  {widths or 'not one number of'} units a block: the same {written} tokens in llama.cpp (llama-cpp-python {llama_cpp.__version__})")
