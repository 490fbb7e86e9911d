"""Databases: one .onnx file that takes strings, and the SQL around it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbertconv.artifact.folder import Artifact, link_or_copy
from sbertconv.artifact.publishing import Staging
from sbertconv.consumers.consumer import SENTENCE, Consumer, Manifest
from sbertconv.consumers.graphs import graph_proto, write_variant
from sbertconv.consumers.naming import server_name
from sbertconv.consumers.reading import keeps, run_texts
from sbertconv.consumers.refusals import all_of, has_output, no_default_prompt
from sbertconv.consumers.tensorflow_serving import read_strings
from sbertconv.errors import visible

EMBED = '''"""Texts to vectors, with onnxruntime and numpy alone."""

from pathlib import Path

import numpy as np
import onnxruntime

SESSION = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")), providers=["CPUExecutionProvider"])


def embed(texts):
    """A float32 array, a row for each text."""
    return SESSION.run(["sentence_embedding"], {"text": np.array(texts, object)})[0]
'''
DUCKDB = '''"""embed(text) in DuckDB: run this, or import `register`."""

from pathlib import Path

import duckdb
from embed import embed

SIZE = {size}


def register(connection):
    """Add the function, which takes a column at a time."""
    import pyarrow as pa

    def column(texts):
        vectors = embed(texts.to_pylist())
        return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), SIZE)

    connection.create_function("embed", column, ["VARCHAR"], f"FLOAT[{SIZE}]", type="arrow")


if __name__ == "__main__":
    database = duckdb.connect("texts.duckdb")
    register(database)
    database.execute(Path(__file__).with_name("search.sql").read_text(encoding="utf-8"))
'''
DUCKDB_SQL = """CREATE TABLE IF NOT EXISTS texts (body VARCHAR, vector FLOAT[{size}]);
UPDATE texts SET vector = embed(body) WHERE vector IS NULL;
SELECT body, array_cosine_similarity(vector, embed('a question')) AS score FROM texts ORDER BY score DESC LIMIT 3;
"""
POSTGRESQL = """-- pgvector, and PL/Python of a Python with onnxruntime and numpy; the folder is on the server.
CREATE EXTENSION IF NOT EXISTS vector;
CREATE EXTENSION IF NOT EXISTS plpython3u;
CREATE OR REPLACE FUNCTION embed(body text) RETURNS vector({size}) AS $$
if "embed" not in GD:
    import sys
    sys.path.insert(0, "/path/to/postgresql")
    from embed import embed
    GD["embed"] = embed
return str(GD["embed"]([body])[0].tolist())
$$ LANGUAGE plpython3u IMMUTABLE STRICT;
CREATE TABLE IF NOT EXISTS texts (body text, vector vector({size}));
UPDATE texts SET vector = embed(body) WHERE vector IS NULL;
SELECT body, 1 - (vector <=> embed('a question')) AS score FROM texts ORDER BY vector <=> embed('a question') LIMIT 3;
"""
CLICKHOUSE = '''#!/usr/bin/env python3
"""An executable function of ClickHouse: a JSON array of texts on each line in, of vectors out."""

import json
import sys

from embed import embed

for line in sys.stdin:
    body = json.loads(line)["body"]
    print(json.dumps({"vector": embed([body])[0].tolist()}), flush=True)
'''
CLICKHOUSE_XML = """<functions>
  <function>
    <type>executable_pool</type>
    <name>embed</name>
    <return_type>Array(Float32)</return_type>
    <return_name>vector</return_name>
    <argument><type>String</type><name>body</name></argument>
    <format>JSONEachRow</format>
    <command>embed_function.py</command>
  </function>
</functions>
"""
CLICKHOUSE_SQL = """-- user_scripts: embed.py, embed_function.py, model.onnx; beside config.xml: embed_function.xml.
SELECT body, cosineDistance(vector, embed('a question')) AS distance FROM texts ORDER BY distance LIMIT 3;
"""
ORACLE = """-- Operators that are not of ai.onnx: {foreign}
BEGIN
  DBMS_VECTOR.LOAD_ONNX_MODEL('MODELS', 'model.onnx', '{name}', JSON(
    '{{"function": "embedding", "embeddingOutput": "sentence_embedding", "input": {{"text": ["DATA"]}}}}'));
END;
/
SELECT body FROM texts
ORDER BY VECTOR_DISTANCE(vector, VECTOR_EMBEDDING({name} USING 'a question' AS data), COSINE) FETCH FIRST 3 ROWS ONLY;
"""
ORACLE_LIMIT = 2**30  # bytes


def foreign_operators(proto: Any) -> list[str]:
    """Operators of other domains than ai.onnx, which another run time may not have; each in one line, for they become a
    comment.
    """
    found = {f"{node.domain}.{node.op_type}" for node in proto.graph.node if node.domain not in ("", "ai.onnx")}
    return sorted(" ".join(visible(name).split()) for name in found)


def write_graph(artifact: Artifact, staging: Staging, folder: str) -> list[str]:
    """The graph in one file with one output, in a folder of its own: scripts that run in there import what lies beside
    them. Returns its foreign operators.
    """
    proto = graph_proto(artifact, staging, weights=True)
    shutil.rmtree(staging.folder / folder, ignore_errors=True)  # what another packing, or a stranger, had there
    write_variant(proto, staging, f"{folder}/model.onnx", [SENTENCE])
    return foreign_operators(proto)


def python_layout(folder: str, files: dict[str, str]) -> Callable[[Artifact, Staging], None]:
    """The graph, embed.py, and the files of one database, with {size} filled in where they have it."""

    def layout(artifact: Artifact, staging: Staging) -> None:
        write_graph(artifact, staging, folder)
        staging.write(f"{folder}/embed.py", EMBED)
        for name, text in files.items():
            staging.write(f"{folder}/{name}", text.replace("{size}", str(artifact.manifest["embedding_dimension"])))

    return layout


@keeps(4)
def embedding_of(path: Path) -> Any:
    """The function of a written embed.py."""
    spec = importlib.util.spec_from_file_location("sbertconv_embed", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.embed


def python_reader(folder: str) -> Callable[[Path, Sequence[str]], Any]:
    """What the written embed.py gives."""
    return lambda packed, texts: embedding_of(packed / folder / "embed.py")(list(texts))


def oracle_layout(artifact: Artifact, staging: Staging) -> None:
    """One file, and the call that loads it."""
    foreign = write_graph(artifact, staging, "oracle")
    staging.write("oracle/load.sql", ORACLE.format(name=server_name(artifact), foreign=", ".join(foreign) or "none"))


def read_oracle(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The string input, the named output."""
    return run_texts(folder / "oracle/model.onnx", texts, SENTENCE)


def fits_oracle(manifest: Manifest) -> Iterable[str]:
    graph = manifest["graphs"][0]
    size = sum(manifest["files"][file]["size"] for file in (graph["formats"]["onnx"], *graph["data"]))
    if size > ORACLE_LIMIT:
        yield f"takes files up to {ORACLE_LIMIT:,} bytes, and this is {size:,}; convert with precision='int8'."


def bigquery_layout(artifact: Artifact, staging: Staging) -> None:
    """The SavedModel that is uploaded to a bucket, and the statement that makes a model of it."""
    source = (staging.folder / artifact.manifest["graphs"][0]["formats"]["saved_model"]).parent
    for path in sorted(source.rglob("*")):
        if path.is_file():
            link_or_copy(path, staging.folder / "bigquery/saved_model" / path.relative_to(source))
    staging.write(
        "bigquery/search.sql",
        f"CREATE OR REPLACE MODEL dataset.{server_name(artifact)}\n"
        "OPTIONS (MODEL_TYPE = 'TENSORFLOW', MODEL_PATH = 'gs://bucket/saved_model/*');\n"
        f"SELECT * FROM ML.PREDICT(MODEL dataset.{server_name(artifact)}, (SELECT body AS text FROM dataset.texts));\n",
    )


def read_bigquery(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The signature serving_default on strings."""
    return read_strings(folder / "bigquery/saved_model", texts)


def fits_bigquery(manifest: Manifest) -> Iterable[str]:
    size = sum(file["size"] for name, file in manifest["files"].items() if name.startswith("saved_"))
    if size > BIGQUERY_LIMIT:
        yield f"takes models up to {BIGQUERY_LIMIT:,} bytes, and this is {size:,}; leave it out."


BIGQUERY_LIMIT = 450 * 2**20  # bytes
DATABASES = {
    "duckdb": {"functions.py": DUCKDB, "search.sql": DUCKDB_SQL},
    "postgresql": {"search.sql": POSTGRESQL},
    "clickhouse": {
        "embed_function.py": CLICKHOUSE,
        "embed_function.xml": CLICKHOUSE_XML,
        "search.sql": CLICKHOUSE_SQL,
    },
}
TEXTS = all_of(no_default_prompt, has_output(SENTENCE), text=True)
ROWS = (
    Consumer(
        "oracle",
        "oracle/model.onnx, loaded with oracle/load.sql",
        all_of(no_default_prompt, has_output(SENTENCE), fits_oracle, text=True),
        oracle_layout,
        read_oracle,
    ),
    *(
        Consumer(
            name,
            f"{name}/model.onnx through embed.py, with onnxruntime alone; {name}/search.sql",
            TEXTS,
            python_layout(name, files),
            python_reader(name),
        )
        for name, files in DATABASES.items()
    ),
    Consumer(
        "bigquery",
        "bigquery/saved_model, with bigquery/search.sql",
        all_of(no_default_prompt, fits_bigquery, form="saved_model", text=True),
        bigquery_layout,
        read_bigquery,
        form="saved_model",
    ),
)
