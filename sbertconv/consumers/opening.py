"""How a packed folder is opened: the lines that its README.md, the command line and the page of a consumer show.

A name -> class of models -> a language and its lines. {size} is the length of a vector, {name} the name that servers
take. The folder is FOLDER.
"""

from __future__ import annotations

from collections.abc import Mapping

from sbertconv.artifact.folder import Artifact
from sbertconv.consumers.naming import server_name

EMBEDS, PAIRS, SPARSE, LATE = "SentenceTransformer", "CrossEncoder", "SparseEncoder", "MultiVectorEncoder"
TRITON = """
import tritonclient.http
from tokenizers import Tokenizer

row = Tokenizer.from_file("FOLDER/tokenizer.json").encode_batch(["a text"])
# tritonserver --model-repository FOLDER/model_repository
client = tritonclient.http.InferenceServerClient("localhost:8000")
...  # an InferInput for each tensor of config.pbtxt
client.infer("{name}", inputs).as_numpy("sentence_embedding")
"""
GENAI = """
import openvino_genai as genai

pooling = genai.TextEmbeddingPipeline.PoolingType.CLS
model = genai.TextEmbeddingPipeline(
    "FOLDER", "CPU", pooling_type=pooling, normalize=False, INFERENCE_PRECISION_HINT="f32"
)
model.embed_documents(["a text", "another"])
"""
SERVICES = """
<!-- Copy FOLDER/vespa/services.xml into the container of your services.xml, and the files that it names beside it. -->
"""
LITERT = """
from ai_edge_litert.interpreter import Interpreter

runner = Interpreter("FOLDER/{file}").get_signature_runner()
runner(input_ids=ids, attention_mask=mask, token_type_ids=types)["sentence_embedding"]  # int32 [1, 128]
"""
OPENS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "fastembed": {
        EMBEDS: (
            "python",
            """
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

TextEmbedding.add_custom_model(
    model="converted/model",
    pooling=PoolingType.DISABLED,
    normalization=False,
    sources=ModelSource(hf="converted/model"),
    dim={size},
    model_file="onnx/model.onnx",
)
model = TextEmbedding("converted/model", specific_model_path="FOLDER")
""",
        ),
        PAIRS: (
            "python",
            """
from fastembed.common.model_description import ModelSource
from fastembed.rerank.cross_encoder import TextCrossEncoder

TextCrossEncoder.add_custom_model(
    model="converted/reranker", sources=ModelSource(hf="converted/reranker"), model_file="onnx/model.onnx"
)
model = TextCrossEncoder("converted/reranker", specific_model_path="FOLDER")
""",
        ),
        SPARSE: (
            "python",
            """
from fastembed import SparseTextEmbedding

model = SparseTextEmbedding("prithivida/Splade_PP_en_v1", specific_model_path="FOLDER")
""",
        ),
        LATE: (
            "python",
            """
from fastembed import LateInteractionTextEmbedding

model = LateInteractionTextEmbedding("colbert-ir/colbertv2.0", specific_model_path="FOLDER/fastembed")
""",
        ),
    },
    "text-embeddings-inference": dict.fromkeys((EMBEDS, PAIRS), ("sh", "cd FOLDER && sh text-embeddings-inference.sh")),
    "sentence-transformers": {
        EMBEDS: (
            "python",
            """
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER", backend="onnx", model_kwargs={"file_name": "onnx/model.onnx"})
""",
        )
    },
    "sentence-transformers-openvino": {
        EMBEDS: (
            "python",
            """
from sentence_transformers import SentenceTransformer

options = {"file_name": "openvino/openvino_model.xml", "ov_config": {"INFERENCE_PRECISION_HINT": "f32"}}
model = SentenceTransformer("FOLDER", backend="openvino", model_kwargs=options)
""",
        )
    },
    "transformers.js": {
        EMBEDS: (
            "js",
            """
import { env, pipeline } from "@huggingface/transformers";

env.localModelPath = "/models"; // where FOLDER lies
const extract = await pipeline("feature-extraction", "FOLDER"); // { dtype: "q8" } for a smaller file, if it has one
const vectors = await extract(["a text", "another"], { pooling: "cls" });
""",
        )
    },
    "triton": {EMBEDS: ("python", TRITON)},
    "kserve": {EMBEDS: ("sh", "kubectl apply -f FOLDER/kserve/inference-service.yaml")},
    "vespa": dict.fromkeys((EMBEDS, SPARSE, LATE), ("xml", SERVICES)),
    "spring-ai": {
        EMBEDS: (
            "java",
            """
var model = new TransformersEmbeddingModel();
model.setModelResource("file:FOLDER/onnx/model.onnx");
model.setTokenizerResource("file:FOLDER/tokenizer.json");
model.setModelOutputName("last_hidden_state");
model.afterPropertiesSet();
""",
        )
    },
    "langchain4j": {
        EMBEDS: (
            "java",
            """
var model = new OnnxEmbeddingModel(
    Path.of("FOLDER/langchain4j/model.onnx"), Path.of("FOLDER/langchain4j/tokenizer.json"), PoolingMode.MEAN);
""",
        )
    },
    "semantic-kernel": {EMBEDS: ("csharp", "// FOLDER/semantic-kernel/embed.cs")},
    "chroma": {
        EMBEDS: (
            "python",
            """
from pathlib import Path

from chromadb.utils.embedding_functions import ONNXMiniLM_L6_V2


class Converted(ONNXMiniLM_L6_V2):
    DOWNLOAD_PATH = Path("FOLDER/chroma")
""",
        )
    },
    "opensearch": {
        EMBEDS: (
            "sh",
            "curl -X POST localhost:9200/_plugins/_ml/models/_register -H 'Content-Type: application/json' \\\n"
            '  -d @FOLDER/opensearch/register.json  # with "url", where model.zip can be had',
        )
    },
    "tensorflow-serving": {
        EMBEDS: ("sh", "tensorflow_model_server --model_name={name} --model_base_path=$PWD/FOLDER/serving/{name}")
    },
    "bigquery": {EMBEDS: ("sql", "-- FOLDER/bigquery/search.sql, with FOLDER/bigquery/saved_model in a bucket")},
    "openvino-genai": {EMBEDS: ("python", GENAI)},
    "openvino-model-server": {
        EMBEDS: (
            "sh",
            "ovms --rest_port 8000 --model_path FOLDER --model_name {name} --task embeddings --pooling CLS "
            "--normalize false",
        )
    },
    "litert": {EMBEDS: ("python", LITERT.replace("{file}", "litert/model_1x128.tflite"))},
    "litert-int8": {EMBEDS: ("python", LITERT.replace("{file}", "litert/model_int8_1x128.tflite"))},
    "elasticsearch": {
        EMBEDS: (
            "python",
            """
from eland.ml.pytorch import PyTorchModel
from elasticsearch import Elasticsearch

model = PyTorchModel(Elasticsearch("http://localhost:9200"), "{name}")
model.import_model(
    model_path="FOLDER/elasticsearch/traced_pytorch_model.pt",
    config_path=None,
    vocab_path="FOLDER/elasticsearch/vocabulary.json",
    config=config,  # an NlpTrainedModelConfig of FOLDER/elasticsearch/config.json
)
""",
        )
    },
    "oracle": {EMBEDS: ("sql", "-- FOLDER/oracle/load.sql, with FOLDER/oracle/model.onnx in the directory MODELS")},
    "duckdb": {
        EMBEDS: (
            "python",
            """
import sys

import duckdb

sys.path.insert(0, "FOLDER/duckdb")
from functions import register

database = duckdb.connect()
register(database)
database.execute("SELECT embed('a text')").fetchone()
""",
        )
    },
    "postgresql": {EMBEDS: ("sh", "psql -f FOLDER/postgresql/search.sql")},
    "clickhouse": {EMBEDS: ("sh", "clickhouse-client --queries-file FOLDER/clickhouse/search.sql")},
}


def opens(name: str, model_class: str, size: object = "SIZE", server: str = "NAME") -> tuple[str, str] | None:
    """The language and the lines, or None for a consumer that has none here."""
    found = OPENS.get(name, {}).get(model_class)
    if found is None:
        return None
    return found[0], found[1].strip().replace("{size}", str(size)).replace("{name}", server)


def block(name: str, artifact: Artifact) -> dict[str, str]:
    """The manifest's entry of a folder."""
    manifest = artifact.manifest
    found = opens(name, manifest["model_class"], manifest.get("embedding_dimension"), server_name(artifact))
    return {} if found is None else {"opens": f"```{found[0]}\n{found[1]}\n```"}
