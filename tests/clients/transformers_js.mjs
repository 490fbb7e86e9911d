// transformers.js in Node: pipeline("feature-extraction") in every precision, and AutoModel with sentence_embedding.

// /// script
// dependencies = ["@huggingface/transformers@4.3.2"]
// [tool.client]
// consumer = "transformers.js"
// folder = "javascript"
// programs = ["node", "npm"]
// atol = {default = 1e-5, model = 1e-5, fp16 = 0.002, q8 = 0.02, q4 = 0.2}
// ///

import { readFileSync, writeFileSync } from "node:fs";
import { dirname, basename } from "node:path";
import { AutoModel, AutoTokenizer, env, pipeline } from "@huggingface/transformers";

const [folder, asked, answer] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const texts = JSON.parse(readFileSync(asked));
const vectors = {};
for (const dtype of ["default", "fp16", "q8", "q4"]) {
  const extract = await pipeline("feature-extraction", basename(folder), dtype === "default" ? {} : { dtype });
  vectors[dtype] = [];
  for (const text of texts) {
    vectors[dtype].push(...(await extract([text], { pooling: "cls" })).tolist());
  }
}
const tokenizer = await AutoTokenizer.from_pretrained(basename(folder));
const model = await AutoModel.from_pretrained(basename(folder));
vectors.model = [];
for (let start = 0; start < texts.length; start += 8) {
  const tokens = tokenizer(texts.slice(start, start + 8), { padding: true, truncation: true });
  vectors.model.push(...(await model(tokens)).sentence_embedding.tolist());
}
writeFileSync(answer, JSON.stringify({ version: env.version, vectors }));
