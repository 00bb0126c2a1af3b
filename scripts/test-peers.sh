#!/usr/bin/env bash
# Compares with PyTorch, transformers and scikit-learn, live:
#     bash scripts/test-peers.sh PYTHON MINILM SCORER SENTENCES
# PYTHON has the packages of bench/peers/requirements.txt and, in PYTHONPATH, PEFT; MINILM is the folder of
# all-MiniLM-L6-v2; SCORER is a Python with those of bench/peers/metrics.txt;
# SENTENCES is a folder with those of bench/peers/sentences.txt. Ends with 1 at the first thing that differs.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:?expected the Python of the peers}
minilm=$(realpath "${2:?expected the folder of all-MiniLM-L6-v2}")
scorer=${3:?expected the Python of the scorers of text}
sentences=${4:?expected the folder of sentence-transformers}
go=${GO:-go}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export MLPFUSION_MINILM=$minilm HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

echo "1. the goldens, made again and compared with the committed ones"
"$python" scripts/peers/goldens.py

echo "2. the real MiniLM: hidden states, logits, every gradient, ten AdamW steps"
"$python" scripts/peers/minilm.py "$minilm" "$work/minilm"
MLPFUSION_PEER_MINILM=$work/minilm "$go" test ./train -count=1 -run '^TestMiniLM$' -v | grep -E 'farthest|^(ok|FAIL)|---'

echo "3. exported checkpoints in plain transformers"
"$go" build -o "$work/mlpfusion" ./cmd/mlpfusion
mlpfusion() { "$work/mlpfusion" --quiet --seed 1 "$@"; }
mkdir "$work/data"
cat >"$work/data/train.csv" <<'END'
text,label
a warm and funny portrait,positive
two dull hours,negative
small and honest,positive
loud and empty,negative
END
cp "$work/data/train.csv" "$work/data/dev.csv"
cut -d, -f1 "$work/data/train.csv" >"$work/sentences"
echo "whatever it lacks in polish it makes up for in nerve , wit and the performances of its two leads" >>"$work/sentences"
compare() { # FUSED FLAGS...: fine-tune a few steps, export, compare
	local name=$1
	shift
	mlpfusion train "$work/$name" "$work/$name-tuned" --task text --data "$work/data" --epochs 3 --lr 1e-3 >"$work/log"
	mlpfusion predict "$work/$name-tuned" --json <"$work/sentences" >"$work/$name.json"
	mlpfusion export "$work/$name-tuned" "$work/$name-exported" "$@" >"$work/log"
	"$python" scripts/peers/export.py "$work/$name-exported" "$work/$name.json" "$work/sentences"
	rm -rf "$work/$name" "$work/$name-tuned" "$work/$name-exported"
}
mlpfusion fuse "$minilm" "$work/uniform" --layers all --width 384 --clustering ward >"$work/log"
compare uniform
mlpfusion fuse "$minilm" "$work/padded" --layers 2-5 --width 384 --clustering ward >"$work/log"
compare padded --pad
"$python" scripts/peers/upcycle.py make "$work/t5" 30522
cp "$minilm/tokenizer.json" "$minilm/tokenizer_config.json" "$work/t5"
mlpfusion upcycle "$work/t5" "$work/switch" --experts 4 --router-std 0.1 >"$work/log"
mlpfusion fuse "$work/switch" "$work/factored" --method svd --layers all --ratio 0.25 >"$work/log"
compare factored --pad
"$python" scripts/peers/mixtures.py "$work/mlpfusion"

mlpfusion shrink "$minilm" "$work/shrunk" --data "$work/data" --text text --label label --epochs 3 --width 384 --calibration-rows 4 >"$work/log"
mlpfusion predict "$work/shrunk" --json <"$work/sentences" >"$work/shrunk.json"
"$python" scripts/peers/export.py "$work/shrunk" "$work/shrunk.json" "$work/sentences"
rm -rf "$work/shrunk" "$work/shrunk.shrink"

echo "   an adapter, and one of a fused model exported with it, in PEFT"
adapter() { # MODEL: fine-tune an adapter of it
	mlpfusion train "$1" "$work/adapter" --task text --data "$work/data" --epochs 3 --lr 1e-3 --lora 8 --overwrite >"$work/log"
	mlpfusion predict "$1" --adapter "$work/adapter" --json <"$work/sentences" >"$work/adapted.json"
}
adapter "$minilm"
"$python" scripts/peers/lora.py "$minilm" "$work/adapter" "$work/adapted.json" "$work/sentences"
mlpfusion fuse "$minilm" "$work/fused" --layers 2-5 --width 384 --clustering ward >"$work/log"
adapter "$work/fused"
mlpfusion export "$work/fused" "$work/plain" --pad --adapter "$work/adapter" >"$work/log"
"$python" scripts/peers/lora.py "$work/plain" "$work/plain-adapter" "$work/adapted.json" "$work/sentences"
rm -rf "$work/adapter" "$work/fused" "$work/plain" "$work/plain-adapter"

echo "   a sentence-transformers model, compressed, trained and exported, in SentenceTransformer"
sentences() { PYTHONPATH=$sentences "$python" scripts/peers/sentences.py "$@" 2>"$work/log" || { cat "$work/log"; exit 1; }; }
sentences make "$minilm" "$work/st"
mlpfusion fuse "$work/st" "$work/st-fused" --layers all --width 384 --clustering ward >"$work/log"
mlpfusion train "$work/st-fused" "$work/st-tuned" --task text --data "$work/data" --epochs 1 >"$work/log"
mlpfusion export "$work/st-fused" "$work/st-plain" >"$work/log"
mlpfusion export "$work/st-fused" "$work/st-code" --remote-code >"$work/log"
mlpfusion export "$work/st-tuned" "$work/st-trained" >"$work/log"
sentences check "$work/st" "$work/st-plain" "$work/st-code" "$work/st-trained"
rm -rf "$work"/st "$work"/st-*

echo "4. T5 and Switch Transformers of published shapes: routers' choices, hidden states, loss"
for shape in t5-small t5-base t5-v1_1-small switch-base-8; do
	"$python" scripts/peers/t5.py $shape "$work/$shape"
	MLPFUSION_PEER_T5=$work/$shape "$go" test ./model -count=1 -run '^TestPublishedShapes$' -v | grep -E 'farthest|^(ok|FAIL)|---'
	rm -rf "${work:?}/$shape"
done

echo "5. GPT-2 at its real shape, and exported, in plain transformers"
data=${MLPFUSION_DATA:-../shared/data}
gpt2() { # MODEL EXPORTED: the same likelihoods from MODEL by us and EXPORTED by transformers
	mlpfusion eval "$1" --task webnlg --data "$work/webnlg" --json >"$work/eval.json"
	"$python" scripts/peers/gpt2.py check "$2" "$work/webnlg" "$work/eval.json"
}
if [ -d "$data/tokenizers/gpt2" ]; then
	"$python" scripts/peers/gpt2.py make "$work/gpt2" "$data/tokenizers/gpt2" "$work/webnlg"
	gpt2 "$work/gpt2" "$work/gpt2"
	mlpfusion fuse "$work/gpt2" "$work/uniform" --method prune --layers all --width 768 >"$work/log"
	mlpfusion export "$work/uniform" "$work/plain" >"$work/log"
	gpt2 "$work/uniform" "$work/plain"
	mlpfusion fuse "$work/gpt2" "$work/padded" --layers 10-11 --width 768 --clustering ward >"$work/log"
	mlpfusion export "$work/padded" "$work/plain" --pad --overwrite >"$work/log"
	gpt2 "$work/padded" "$work/plain"
	rm -rf "$work/gpt2" "$work/uniform" "$work/padded" "$work/plain"
else
	echo "  skipped: no $data/tokenizers/gpt2"
fi

weights=${MLPFUSION_WEIGHTS:-../weights}
for name in SmolLM2-135M-Instruct gemma-3-270m; do
	if [ -d "$weights/$name" ]; then
		echo "   $name: hidden states, loss, greedy text"
		"$python" scripts/peers/decoders.py "$weights/$name" "$work/$name.safetensors"
		MLPFUSION_DECODER=$(realpath "$weights/$name") MLPFUSION_PEER_DECODER=$work/$name.safetensors "$go" test ./model -count=1 -run '^TestRealDecoder$' -v | grep -E 'farthest|^(ok|FAIL)|---'
		rm "$work/$name.safetensors"
	else
		echo "   skipped: no $weights/$name"
	fi
done

echo "6. the tests that ask the peers themselves"
MLPFUSION_PYTHON=$(command -v "$python") "$go" test -count=1 ./checkpoint ./tokenize ./task ./convert ./model ./ntk ./fusion ./kmeans

echo "7. scores of generated text: sacrebleu, NLTK and pycocoevalcap on real texts"
MLPFUSION_METRICS_PYTHON=$scorer "$go" test -count=1 ./metric -run '^TestPeers$' -v | grep -E 'segments|^(ok|FAIL)|---'
