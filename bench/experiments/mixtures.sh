#!/usr/bin/env bash
# The comparison of docs/mixtures.md: SmolLM2-135M upcycled to four experts in each layer,
# a tenth of each expert's units drawn anew, trained 40 steps on WikiText-2 and GSM8K, then
# compressed by every method at equal parameters of the experts. It goes on where it was stopped.
#     bash bench/experiments/mixtures.sh MLPFUSION MODEL DATA OUT
# MLPFUSION is the program, MODEL the folder of SmolLM2-135M-Instruct, DATA has the folders
# WikiText-2 and GSM8K.
set -euo pipefail
program=$(realpath "${1:?expected the program}")
dense=$(realpath "${2:?expected the folder of the model}")
data=$(realpath "${3:?expected the data folder}")
mkdir -p "${4:?expected an output folder}"
cd "$4"
mlpfusion() { "$program" --quiet --seed 1 "$@"; }

# WikiText-2's first half and as much of GSM8K to learn, its second half to be scored.
if [ ! -f texts/train.txt ]; then
	mkdir -p texts
	wiki=$data/WikiText-2/wiki.test.raw
	half=$(($(wc -c <"$wiki") / 2))
	article() { awk '/^ = [^=]+ = $/ { print "<|endoftext|>" } { print }'; }
	tail -c +$((half + 1)) "$wiki" | article >texts/dev.txt
	{
		head -c "$half" "$wiki" | article
		echo "<|endoftext|>"
		head -n 1200 "$data/GSM8K/train.jsonl" | jq -r '"\(.question)\n\(.answer)\n<|endoftext|>"'
	} >texts/train.txt
fi
lm=(--task lm --data texts --max-length 256)
if [ ! -d moe ]; then
	[ -d upcycled ] || mlpfusion upcycle "$dense" upcycled --experts 4 --top-k 2 --drop 0.1 --router-std 0.02
	resume=
	if [ -d moe.train ]; then resume=--resume; fi
	/usr/bin/time -v "$program" --seed 1 train upcycled moe "${lm[@]}" --precision bf16 --batch 2 --max-steps 40 --lr 1e-4 \
		--train-routers --dev-rows 16 --snapshot-every 10 $resume 2>train.log
fi

# At equal parameters of the mixtures: each expert on its own at the share, one set of that
# many units, that many experts.
row() { # NAME KEPT FLAGS…
	local name=$1 kept=$2
	shift 2
	if grep -q "^$name,$kept," results.csv; then return; fi
	local model=moe
	if [ "$name" != none ]; then
		model=small
		if ! mlpfusion fuse moe small --overwrite --method "$name" "$@" >fuse.log 2>&1; then
			tail -n 3 fuse.log
			return
		fi
	fi
	mlpfusion eval $model --perplexity --data texts/dev.txt --max-length 256 --dev-rows 16 --json >eval.json
	mlpfusion inspect $model --json >inspect.json
	mlpfusion inspect $model "${lm[@]}" --rows 16 --beside moe --json >routers.json
	jq -rn --arg name "$name" --arg kept "$kept" --slurpfile e eval.json --slurpfile i inspect.json --slurpfile r routers.json '
		($r[0].routers // $r[0]) as $r
		| [$name, $kept, $i[0].parameters, $i[0].mlp_flops_per_token, $e[0].perplexity, $e[0].predicted_tokens,
			([$r[] | (.tokens | max) / (.tokens | add)] | add / length),
			(([$r[].same // 0] | add) / ([$r[].tokens[]] | add))] | @csv' | tr -d '"' >>results.csv
}
[ -f results.csv ] || echo "method,kept,parameters,mlp_flops_per_token,perplexity,predicted_tokens,busiest_expert,to_the_same_expert" >results.csv
texts=("${lm[@]}" --calibration-rows 16)
row none 1
for kept in 0.5 0.75; do
	experts=$(jq -n "4 * $kept") units=$(jq -n "4 * 1536 * $kept")
	row prune "$kept" --ratio "$kept"
	row reap "$kept" --experts "$experts" "${texts[@]}"
	row dern "$kept" --experts "$experts" "${texts[@]}"
	row mc-smoe "$kept" --experts "$experts" "${texts[@]}"
	row hc-smoe "$kept" --experts "$experts" "${texts[@]}"
	row wanda "$kept" --ratio "$kept" "${texts[@]}"
	row svd "$kept" --ratio "$kept"
	row fusion "$kept" --ratio "$kept"
	row calibrated "$kept" --ratio "$kept" --fit 20 "${texts[@]}"
	row shared "$kept" --width "$units"
done
