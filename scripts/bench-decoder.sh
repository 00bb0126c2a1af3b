#!/usr/bin/env bash
# Measures SmolLM2 beside transformers and llama.cpp: scripts/bench-decoder.sh PYTHON LLAMA SMOLLM2 [ROWS]
# PYTHON is the peers', LLAMA what scripts/llama.sh made, SMOLLM2 the model's folder; ROWS is a
# regular expression that chooses among the rows. Results go to bench/results.
# The rows of LoRA need PEFT too: a folder with it may stand in PYTHONPATH.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 llama=$2 rows=${4:-}
export MLPFUSION_SMOLLM2=$3 PYTHONPATH=$llama/site:$llama/llama.cpp/gguf-py:${PYTHONPATH:-}
mkdir -p bin
go build -o bin/bench-decoder ./bench/decoder
for kind in f32:fp32 bf16:bf16 q8_0:int8; do
	file=$llama/${kind#*:}.gguf
	[ -e "$file" ] || "$python" "$llama/llama.cpp/convert_hf_to_gguf.py" "$MLPFUSION_SMOLLM2" --outtype "${kind%:*}" --outfile "$file"
done
bin/bench-decoder compare -python "$python" -llama "$python" -gguf "$llama" -only "$rows" -out bench/results
