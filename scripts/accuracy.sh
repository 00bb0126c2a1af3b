#!/usr/bin/env bash
# Accuracy on SST-2 of MiniLM, original and fused: 8,000 training sentences, one
# epoch, lr 1e-4, batch 32, three seeds; the paper's optimizer.
#   scripts/accuracy.sh MINILM DATA [NAME FUSE-FLAGS…]
# Prints a line a run and the means; what is done already is not done again.
# Without a NAME: the original, and fusion of the last four layers to 384 units.
set -euo pipefail
cd "$(dirname "$0")/.."
minilm=$1 data=$2
out=${OUT:-out/accuracy}
mkdir -p "$out"
[ -x bin/mlpfusion ] || make build

# runs NAME MODEL: three seeds of fine-tuning.
runs() {
	for seed in 1 2 3; do
		result="$out/$1-$seed.json"
		if [ ! -s "$result" ]; then
			bin/mlpfusion train "$2" "$out/$1-$seed" --task sst2 --data "$data/SST-2" --train-rows 8000 --epochs 1 --lr "${LR:-1e-4}" \
				--precision "${PREC:-fp32}" --seed $seed --overwrite --json >"$result.tmp"
			mv "$result.tmp" "$result"
			rm -rf "${out:?}/$1-$seed"
		fi
	done
	python3 - "$1" "$out" <<-'PY'
		import json, statistics, sys
		name, out = sys.argv[1:]
		runs = [json.load(open(f"{out}/{name}-{s}.json")) for s in (1, 2, 3)]
		acc = [r["metrics"][0]["value"] for r in runs]
		print(f"{name}: accuracy {statistics.mean(acc):.4f} ± {statistics.stdev(acc):.4f} ({', '.join(f'{a:.4f}' for a in acc)}), "
		      f"{statistics.median(r['seconds_per_step'] for r in runs):.3f} s a step, {runs[0]['parameters']} parameters", flush=True)
	PY
}

if [ $# -gt 2 ]; then
	name=$3
	shift 3
	[ -d "$out/$name" ] || bin/mlpfusion fuse "$minilm" "$out/$name" "$@"
	runs "$name" "$out/$name"
	exit
fi
runs original "$minilm"
[ -d "$out/fused" ] || bin/mlpfusion fuse "$minilm" "$out/fused" --layers 2-5 --width 384
runs fused "$out/fused"
