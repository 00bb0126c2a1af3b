#!/usr/bin/env bash
# Measures beside the peers: scripts/bench.sh PYTHON MINILM
# PYTHON is that of the peers' virtual environment, MINILM the model's folder.
# Results go to bench/results with the processor's name.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 minilm=$2
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
export MLPFUSION_MINILM=$minilm
mkdir -p bin bench/results
go build -o bin/bench-engine ./bench/engine
bin/bench-engine compare -python "$python" -out bench/results
