#!/usr/bin/env bash
# A decoder narrowed by every method that takes it (docs/results.md, "SmolLM2 narrowed
# without training"), as CSV on standard output, one row a cell:
#
#	bench/experiments/decoder.sh MLPFUSION MODEL WIKITEXT OUT [RATIO …] >>cells.csv
#
# WIKITEXT is the folder of WikiText-2's wiki.test.raw, whose first half calibrates and
# trains and whose second half measures: perplexity on 12 windows of 1,024 tokens. Output
# and kernel errors are of one window. STEPS are those of distillation (48). A cell whose
# model lies in OUT is not made again, so what was stopped goes on. Needs jq.
set -euo pipefail
program=$(realpath "$1") model=$(realpath "$2") text=$(realpath "$3")/wiki.test.raw
mkdir -p "$4"
cd "$4"
ratios=("${@:5}")
if [ ${#ratios[@]} = 0 ]; then ratios=(0.75 0.5 0.25); fi
if [ ! -d wiki ]; then
	tr -d '\r' <"$text" >text
	split -n l/2 text part
	mkdir wiki
	mv partaa wiki/train.txt
	mv partab wiki/test.txt
fi
lm=(--task lm --data wiki --max-length 1024)
TIMEFORMAT='%U %S'
run() { "$program" --quiet --threads 2 "$@"; }

cell() { # NAME COMMAND ARGUMENT…: makes NAME by the command and prints its row
	local name=$1 seconds=- scores errors
	shift
	if [ ! -d "$name" ]; then
		seconds=$({ time run "$@" >"$name.out" 2>"$name.err"; } 2>&1 | awk '{print $1 + $2}')
	fi
	scores=$(run eval "$name" --perplexity --data wiki/test.txt --max-length 1024 --dev-rows 12 --json | jq -r '[.perplexity, .loss] | join(",")')
	errors=$(run ntk "$model" "$name" "${lm[@]}" --rows 1 --json | jq -r '[.output.hidden[-1] / .output.hidden_norm[-1], .sum.relative] | join(",")')
	echo "$(basename "$model"),$name,$scores,$errors,$seconds,\"${*//$model/MODEL}\""
}

echo 'model,cell,perplexity,loss,output_error,kernel_error,cpu_seconds,command'
for r in "${ratios[@]}"; do
	for method in fusion svd prune; do
		cell "$method-$r" fuse "$model" "$method-$r" --method $method --ratio "$r"
	done
	cell "wanda-$r" fuse "$model" "wanda-$r" --method wanda --ratio "$r" "${lm[@]}" --calibration-rows 10
	cell "calibrated-$r" fuse "$model" "calibrated-$r" --method calibrated --ratio "$r" "${lm[@]}"
	cell "distilled-$r" fuse "$model" "distilled-$r" --method calibrated --ratio "$r" --distill "${STEPS:-48}" "${lm[@]}"
	for method in wanda calibrated; do
		cell "$method-$r-tuned" tune "$model" "$method-$r" "$method-$r-tuned" "${lm[@]}" --batch 1 --precision bf16
		cell "$method-$r-trained" train "$method-$r" "$method-$r-trained" "${lm[@]}" --batch 2 --epochs 1 --lr 1e-4 --precision bf16 --recompute
	done
done
