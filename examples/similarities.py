"""A few similarities from a converted folder: numpy, tokenizers and what runs its format, no torch."""

import sys

import sbertconv

QUERY = "How do I bake bread at home?"
TEXTS = [
    "Mix flour, water, salt and yeast, let the dough rise, and bake it for forty minutes.",
    "The bakery around the corner opens at six in the morning.",
    "The central bank left its interest rate unchanged.",
]

model = sbertconv.load(sys.argv[1])
scores = model.similarity(model.encode(QUERY), model.encode(TEXTS))[0]
print(f"\n{QUERY}")
for score, text in sorted(zip(scores, TEXTS, strict=True), reverse=True):
    print(f"  {score:.4f}  {text}")
assert "torch" not in sys.modules
