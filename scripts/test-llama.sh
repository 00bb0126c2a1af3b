#!/usr/bin/env bash
# Compares exports with llama.cpp, live: scripts/test-llama.sh PYTHON LLAMA SMOLLM2
# PYTHON is the peers', LLAMA what scripts/llama.sh made, SMOLLM2 the folder of
# SmolLM2-135M-Instruct. The model as it is, and fused ones as `export` writes them, are
# converted with llama.cpp's script and write the same tokens there as here.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 llama=$2 model=$3
go=${GO:-go}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH=$llama/site:$llama/llama.cpp/gguf-py HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$go" build -o "$work/mlpfusion" ./cmd/mlpfusion
mlpfusion() { "$work/mlpfusion" --quiet --seed 1 "$@"; }
mkdir "$work/texts"
cat docs/*.md >"$work/texts/train.txt"
cat >"$work/prompts" <<'END'
The capital of France is
Water boils at a temperature of
def fibonacci(n):
END

convert=("$llama/llama.cpp/convert_hf_to_gguf.py")
compare() { # MODEL FLAGS of export
	mlpfusion generate "$1" --greedy --max-new-tokens 32 --input "$work/prompts" --json >"$work/ours.jsonl"
	mlpfusion export "$1" "$work/exported" --overwrite "${@:2}" >"$work/log"
	"$python" "${convert[@]}" "$work/exported" --outtype f32 --outfile "$work/model.gguf" >"$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }
	"$python" scripts/peers/llama.py "$work/model.gguf" "$work/exported" "$work/prompts" "$work/ours.jsonl"
}
echo "1. the model as it is"
compare "$model"
echo "2. P of fusion folded, three quarters of the last ten layers' units"
mlpfusion fuse "$model" "$work/fused" --layers 20-29 --ratio 0.75 --clustering ward >"$work/log"
compare "$work/fused" --pad
echo "3. Wanda-sp, three quarters of all units"
mlpfusion fuse "$model" "$work/wanda" --ratio 0.75 --method wanda --task lm --data "$work/texts" --calibration-rows 8 >"$work/log"
compare "$work/wanda"
echo "4. the second again, a width for each layer: nemotron-nas"
convert=(scripts/peers/deci.py "$llama/llama.cpp")
compare "$work/fused" --nemotron-nas --pad
