// A few similarities from a graph with its tokenizer inside: strings in, vectors out, nothing but ONNX Runtime.
// Usage: node similarities.cjs <model.onnx>
const ort = require("onnxruntime-node");

const QUERY = "How do I bake bread at home?";
const TEXTS = [
  "Mix flour, water, salt and yeast, let the dough rise, and bake it for forty minutes.",
  "The bakery around the corner opens at six in the morning.",
  "The central bank left its interest rate unchanged.",
];

async function main() {
  const session = await ort.InferenceSession.create(process.argv[2]);
  const texts = [QUERY, ...TEXTS];
  const { sentence_embedding } = await session.run({ text: new ort.Tensor("string", texts, [texts.length]) });
  const [count, size] = sentence_embedding.dims;
  const rows = Array.from({ length: count }, (_, i) => sentence_embedding.data.subarray(i * size, (i + 1) * size));
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  const found = TEXTS.map((text, i) => [cosine(rows[0], rows[i + 1]), text]).sort((a, b) => b[0] - a[0]);
  console.log(`\n${QUERY} (Node.js ${process.version}, no tokenizer)`);
  for (const [score, text] of found) console.log(`  ${score.toFixed(4)}  ${text}`);
}

main();
