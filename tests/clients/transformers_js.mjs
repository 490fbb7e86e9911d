// transformers.js in Node: AutoModel, sentence_embedding.

// /// script
// dependencies = ["@huggingface/transformers@4.3.2"]
// [tool.client]
// folder = "onnx"
// over_limit = false
// programs = ["node", "npm"]
// ///

import { readFileSync, writeFileSync } from "node:fs";
import { dirname, basename } from "node:path";
import { AutoModel, AutoTokenizer, env } from "@huggingface/transformers";

const [folder, asked, answer] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const tokenizer = await AutoTokenizer.from_pretrained(basename(folder));
const model = await AutoModel.from_pretrained(basename(folder));
const vectors = [];
for (const text of JSON.parse(readFileSync(asked))) {
  const { sentence_embedding } = await model(tokenizer([text], { padding: true, truncation: true }));
  vectors.push(...sentence_embedding.tolist());
}
writeFileSync(answer, JSON.stringify({ version: env.version, vectors }));
