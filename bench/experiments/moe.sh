#!/usr/bin/env bash
# The experiment of docs/moe.md: a small T5 with random weights, trained on part of
# SST-2, upcycled to eight experts in every layer, trained on all of it, then
# compressed by every method, scored, and fine-tuned. It goes on where it was stopped.
#     bash bench/experiments/moe.sh MLPFUSION PYTHON DATA OUT
# MLPFUSION is the program, PYTHON has the peers' packages, DATA the folders SST-2
# and tokenizers of the shared data.
set -euo pipefail
program=$(realpath "${1:?expected the program}")
python=${2:?expected the Python of the peers}
data=$(realpath "${3:?expected the data folder}")
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${4:?expected an output folder}"
cd "$4"
mlpfusion() { "$program" --quiet --threads "${THREADS:-1}" --seed 1 "$@"; }
sst2=(--task sst2 --data "$data/SST-2" --batch 64 --max-length 64)

if [ ! -d random ]; then
	"$python" - <<'END'
import torch
from transformers import T5Config, T5ForSequenceClassification

torch.manual_seed(1)
config = T5Config(
    vocab_size=30522, d_model=128, d_kv=32, d_ff=512, num_heads=4, num_layers=4, num_decoder_layers=2,
    feed_forward_proj="relu", initializer_factor=0.3, decoder_start_token_id=0, eos_token_id=102,
)
T5ForSequenceClassification(config).save_pretrained("random")
END
	cp "$data/tokenizers/bert-base-uncased/vocab.txt" random/
fi
resume() { if [ -d "$1.train" ]; then echo --resume; fi; }
[ -d dense ] || mlpfusion train random dense "${sst2[@]}" --lr 2e-3 --epochs 1 --train-rows 30000 $(resume dense)
[ -d upcycled ] || mlpfusion upcycle dense upcycled --experts 8 --every 1
[ -d moe ] || mlpfusion train upcycled moe "${sst2[@]}" --lr 1e-3 --epochs 1 $(resume moe)
mlpfusion inspect upcycled --task sst2 --data "$data/SST-2" --max-length 64 --json >routers-before.json
mlpfusion inspect moe --task sst2 --data "$data/SST-2" --max-length 64 --json >routers-after.json
mlpfusion compare moe compare --config "$here/moe.yaml" --data "$data"
mlpfusion compare moe wider --config "$here/moe.yaml" --data "$data" --widths 128,64 --seeds 1 --epochs 0
for model in {compare,wider}/models/*/; do # as they are before they are fine-tuned
	echo "$(basename "$model") $(mlpfusion eval "$model" --task sst2 --data "$data/SST-2" --max-length 64 | grep dev)"
done >before.txt
