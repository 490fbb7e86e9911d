"""Converts a tiny dual encoder of texts and pictures, and embeds a picture and two texts with it.

The weights are random, so the similarities mean nothing; they are those of the original, which the conversion proved.

Usage: picture.py <the sbertconv command> <a folder to work in>
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from cases import siglip

import sbertconv

command, work = sys.argv[1], Path(sys.argv[2])
shutil.rmtree(work, ignore_errors=True)
siglip().save_pretrained(str(work / "model"))
subprocess.run([command, "to-onnx", str(work / "model"), str(work / "onnx")], check=True)
model = sbertconv.load(work / "onnx")
shades = np.linspace(0, 255, 60 * 80 * 3).reshape(60, 80, 3).astype(np.uint8)
picture = model.encode([Image.fromarray(shades)])
texts = model.encode(["A quick brown fox.", "Berlin"])
print(f"a picture {list(picture.shape)}, texts {list(texts.shape)}, similarities {model.similarity(picture, texts)}")
