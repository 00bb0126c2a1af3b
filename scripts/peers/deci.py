"""llama.cpp's conversion script for a model of nemotron-nas with a tokenizer like GPT-2's:

    python scripts/peers/deci.py LLAMA.CPP MODEL ARGUMENTS of convert_hf_to_gguf.py

The script itself takes such a tokenizer in this family if it has 128,256 words, as Llama
3's has, and else expects Llama 2's. Everything but the choice of vocabulary is left to it.
"""

import sys

sys.path.insert(0, sys.argv.pop(1))
import convert_hf_to_gguf  # noqa: E402
from conversion.deci import DeciModel  # noqa: E402

DeciModel.set_vocab = lambda self: self._set_vocab_gpt2()
convert_hf_to_gguf.main()
