// onnxruntime-node: strings in, one graph.

// /// script
// dependencies = ["onnxruntime-node@1.30.0"]
// [tool.client]
// folder = "text"
// nul = false
// programs = ["node", "npm"]
// ///

import { readFileSync, writeFileSync } from "node:fs";
import * as ort from "onnxruntime-node";

const [folder, asked, answer] = process.argv.slice(2);
const texts = JSON.parse(readFileSync(asked));
const session = await ort.InferenceSession.create(`${folder}/onnx/model.onnx`);
const { sentence_embedding: found } = await session.run({ text: new ort.Tensor("string", texts, [texts.length]) });
const size = found.dims[1];
const vectors = texts.map((_, row) => Array.from(found.data.slice(row * size, (row + 1) * size)));
writeFileSync(answer, JSON.stringify({ version: ort.env.versions.node, vectors }));
