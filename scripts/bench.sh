#!/usr/bin/env bash
# Measures beside the peers: scripts/bench.sh PYTHON MINILM [ROWS]
# PYTHON is that of the peers' virtual environment, MINILM the model's folder.
# Results go to bench/results with the processor's name; runs of one day add up.
# ROWS, a regular expression, chooses among the rows of engine ("MiniLM SST-2
# step, fp32 PyTorch, random") and of gemm ("fp32 nt 425×384×1536").
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 minilm=$2 rows=${3:-}
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
export MLPFUSION_MINILM=$minilm
mkdir -p bin bench/results
go build -o bin/bench-engine ./bench/engine
go build -o bin/bench-gemm ./bench/gemm
bin/bench-gemm -peer "$python bench/peers/gemm.py" -bf16 -only "$rows" -out bench/results
bin/bench-engine compare -python "$python" -only "$rows" -out bench/results
go run ./bench/generate -python "$python" -out bench/results
