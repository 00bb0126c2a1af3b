#!/usr/bin/env bash
# Brings llama.cpp for the peers' Python: scripts/llama.sh PYTHON FOLDER
# FOLDER gets the packages of bench/peers/llama.txt (site) and, of llama.cpp's source, the
# script that converts checkpoints (llama.cpp).
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 folder=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/site" -r bench/peers/llama.txt
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$work" "$(grep ^llama-cpp-python bench/peers/llama.txt)"
tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work"
mkdir "$work/llama.cpp"
cp -r "$work"/llama_cpp_python-*/vendor/llama.cpp/{convert_hf_to_gguf.py,conversion,gguf-py,LICENSE} "$work/llama.cpp"
mkdir -p "$folder"
mv "$work/site" "$work/llama.cpp" "$folder"
