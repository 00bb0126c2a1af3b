#!/usr/bin/env bash
# The Adam kernel's relative error on sentences that fitting did not see
# (docs/ntk.md, "Fitted step sizes"), as a Markdown table:
#
#	bench/experiments/heldout.sh MODEL SST2 [WIDTH [SEED]]
#
# MODEL is all-MiniLM-L6-v2, SST2 the folder of the data set. Layers 2–5 keep WIDTH
# hidden units (384); step sizes are fitted on 128 training sentences and judged on
# 120 dev sentences. The last columns are the ratios of calibrated with fitted steps
# to plain fusion and to the best of svd, prune, sketch and cluster. Needs jq.
set -euo pipefail
model=$(realpath "$1") data=$(realpath "$2") width=${3:-384} seed=${4:-1}
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -o "$work/mlpfusion" ./cmd/mlpfusion
run() { "$work/mlpfusion" --quiet --seed "$seed" "$@"; }

columns=()
judge() { # NAME CHECKPOINT: a column of the table
	run ntk "$model" "$2" --task sst2 --data "$data" --blocks fused --rows 120 --json |
		jq -r '.blocks[].relative, .sum.relative' >"$work/$1.column"
	columns+=("$work/$1.column")
}
for method in fusion svd prune sketch cluster calibrated; do
	texts=()
	if [ $method = calibrated ]; then texts=(--task sst2 --data "$data"); fi
	run fuse "$model" "$work/$method" --method $method --layers 2-5 --width "$width" "${texts[@]}" >/dev/null
	judge $method "$work/$method"
done
for method in fusion calibrated; do
	run steps "$model" "$work/$method" "$work/$method-fitted" --task sst2 --data "$data" --rows 128 >/dev/null
	judge "$method, fitted" "$work/$method-fitted"
done
printf '%s\n' 2 3 4 5 sum >"$work/blocks"
echo '| block | fusion | svd | prune | sketch | cluster | calibrated | fusion, fitted | calibrated, fitted | to fusion | to the best baseline |'
echo '|---|---|---|---|---|---|---|---|---|---|---|'
paste "$work/blocks" "${columns[@]}" | awk -F'\t' '{
	best = $3; for (i = 4; i <= 6; i++) if ($i < best) best = $i
	printf "| %s |", $1; for (i = 2; i <= 9; i++) printf " %.3f |", $i
	printf " %.2f | %.2f |\n", $9 / $2, $9 / best
}'
