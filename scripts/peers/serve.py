"""Compares what a model writes in vLLM with what it writes here.

    VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_CPU_KVCACHE_SPACE=1 python scripts/peers/serve.py MODEL PROMPTS OURS

MODEL is an exported directory, PROMPTS a file of prompts, one a line, OURS what
`mlpfusion generate --greedy --json` wrote to them. The Python is one that has vLLM, for a
CPU the package vllm-cpu.
"""

import json
import sys

import vllm

if __name__ == "__main__":
    model, prompts, ours = sys.argv[1:]
    llm = vllm.LLM(model, trust_remote_code=True, dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=4)
    written = 0
    for prompt, line in zip(open(prompts), open(ours), strict=True):
        want = json.loads(line)
        made = llm.generate([prompt.rstrip("\n")], vllm.SamplingParams(temperature=0, max_tokens=want["tokens"]))[0].outputs[0]
        if made.text != want["text"]:
            sys.exit(f"{prompt!r}: vLLM writes {made.text!r}, we write {want['text']!r}")
        written += len(made.token_ids)
    if written < 32:
        sys.exit(f"expected at least 32 tokens, found {written}")
    print(f"  the same {written} tokens in vLLM {vllm.__version__}")
