"""Dense vectors, lexical weights and token vectors of one pass: a folder of BGE-M3's form, against the published rule
of FlagEmbedding computed here with numpy alone.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as st

import sbertconv
from sbertconv.source.heads import read_heads

TEXTS = ["How many people live in Berlin?", "", "fox", "the fox and the quick fox, over and over the fox " * 4]
SIZES = {"sparse_linear.pt": 1, "colbert_linear.pt": 24}
OUTPUTS = ["sentence_embedding", "lexical_weights", "colbert_vecs"]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """XLM-R, CLS, normalised, and the two heads in half precision, as BAAI/bge-m3 is saved."""
    place = tmp_path_factory.mktemp("m3") / "model"
    transformer = tiny.transformer("xlm-roberta")
    model = SentenceTransformer(modules=[transformer, st.Pooling(32, "cls"), st.Normalize()], device="cpu")
    model.save_pretrained(str(place))
    for name, size in SIZES.items():
        torch.manual_seed(size)
        torch.save(torch.nn.Linear(32, size).half().state_dict(), place / name)
    return place


@pytest.fixture(scope="module")
def published(folder: Path) -> list[dict[str, Any]]:
    """What FlagEmbedding gives for each text."""
    model = SentenceTransformer(str(folder), device="cpu")
    heads = {name: {key: part.float().numpy() for key, part in torch.load(folder / name).items()} for name in SIZES}
    sparse, colbert = heads["sparse_linear.pt"], heads["colbert_linear.pt"]
    tokenizer = model.tokenizer
    unused = {tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    found = []
    for text in TEXTS:
        given = model.encode(text, output_value=None)
        hidden, ids = given["token_embeddings"].numpy(), given["input_ids"].tolist()
        weights: dict[int, float] = {}
        for token, weight in zip(ids, np.maximum(hidden @ sparse["weight"].T + sparse["bias"], 0)[:, 0], strict=True):
            if token not in unused and weight > weights.get(token, 0):
                weights[token] = float(weight)
        vectors = hidden[1:] @ colbert["weight"].T + colbert["bias"]
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        found.append({"lexical_weights": weights, "colbert_vecs": vectors, "sentence_embedding": model.encode(text)})
    return found


@pytest.mark.parametrize("verb", ["to_onnx", "to_openvino", "to_torch"])
def test_one_pass_gives_the_three_answers_of_the_published_rule(
    folder: Path, published: list[dict[str, Any]], tmp_path: Path, verb: str
) -> None:
    artifact = getattr(sbertconv, verb)(folder, tmp_path / "made", outputs=OUTPUTS)
    asked = [check["name"] for check in artifact.manifest["parity"]["checks"]]
    assert {"lexical weights", "colbert vecs"} <= set(asked)
    model = sbertconv.load(artifact.folder, format=artifact.formats[0])
    np.testing.assert_allclose(model.encode(TEXTS), [row["sentence_embedding"] for row in published], **CLOSE)
    for ours, row in zip(model.encode(TEXTS, output_value="lexical_weights"), published, strict=True):
        assert ours.keys() == row["lexical_weights"].keys()
        np.testing.assert_allclose(list(ours.values()), list(row["lexical_weights"].values()), **CLOSE)
    for ours, row in zip(model.encode(TEXTS, output_value="colbert_vecs"), published, strict=True):
        np.testing.assert_allclose(ours, row["colbert_vecs"], **CLOSE)
    together = model.encode(TEXTS[0], output_value=None)
    assert together["lexical_weights"] == model.encode(TEXTS[0], output_value="lexical_weights")
    assert sbertconv.verify(folder, artifact.folder).passed


def test_the_heads_are_said_aloud_where_nobody_asks_for_them(folder: Path, tmp_path: Path) -> None:
    said = (
        "sparse_linear.pt and colbert_linear.pt beside it: lexical_weights and colbert_vecs are given where outputs= "
        "asks for them."
    )
    artifact = sbertconv.to_onnx(folder, tmp_path / "made")
    assert said in artifact.manifest["notes"]
    assert [output["name"] for output in artifact.manifest["graphs"][0]["outputs"]] == ["sentence_embedding"]
    assert said in sbertconv.inspect(folder)["notes"]


def test_the_pipeline_has_the_heads_weights(folder: Path) -> None:
    pipeline = sbertconv.pipeline(folder, outputs=OUTPUTS)
    ids = torch.tensor([[0, 5, 6, 2]])
    given = pipeline(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert [list(given[name].shape) for name in OUTPUTS] == [[1, 32], [1, 4], [1, 4, 24]]
    assert "lexical_weights.linear.weight" in pipeline.state_dict()


class Payload:
    def __reduce__(self) -> Any:
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"weight": torch.zeros(1, 31), "bias": torch.zeros(1)}, "no linear layer of 1 x 32 finite numbers"),
        ({"weight": torch.zeros(2, 32), "bias": torch.zeros(2)}, "no linear layer of 1 x 32 finite numbers"),
        ({"weight": torch.zeros(1, 32)}, "no linear layer of 1 x 32 finite numbers"),
        (
            {"weight": torch.full((1, 32), torch.nan), "bias": torch.zeros(1)},
            "no linear layer of 1 x 32 finite numbers",
        ),
        ([1], "holds more than tensors by name"),
        ({"weight": Payload()}, "no weights that torch.save wrote"),
        (b"no zip", "not a readable archive"),
        (None, "has no head beside it for lexical_weights (sparse_linear.pt)"),
    ],
)
def test_files_that_are_no_heads_are_refused(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], content: Any, said: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    file = broken / "sparse_linear.pt"
    file.unlink()
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(sbertconv.SbertconvError) as refused:
        sbertconv.to_onnx(broken, tmp_path / "made", outputs=OUTPUTS)
    assert said in str(refused.value)
    assert not (tmp_path / "made").exists()
    assert "ran" not in capfd.readouterr().out


def test_a_live_model_has_no_heads(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(sbertconv.UnsupportedOptionError, match="has no head beside it"):
        sbertconv.to_onnx(SentenceTransformer(str(folder), device="cpu"), tmp_path / "made", outputs=OUTPUTS)
    manifest = json.dumps(sbertconv.inspect(folder)["notes"])
    assert "No module reads" not in manifest


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(1, 32).to_sparse(),
        torch.zeros(1, 32, device="meta"),
        torch.zeros(1, 32).to(torch.float8_e4m3fn),
        torch.zeros(1, 32, dtype=torch.complex64),
        torch.tensor(1.0),
        torch.zeros(1, 1).expand(1 << 27, 32),  # four bytes in the file, 16 GB where they are looked at
    ],
    ids=lambda weight: (
        f"{weight.layout} {weight.device} {weight.dtype} {weight.ndim} {len(weight) if weight.ndim else 0}"
    ),
)
def test_a_head_of_other_than_plain_numbers_is_refused(weight: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"weight": weight, "bias": torch.zeros(1)}, tmp_path / "colbert_linear.pt")
    with pytest.raises(sbertconv.SourceError, match=r"more than tensors by name|no linear layer of any number x 32"):
        read_heads(tmp_path, ["colbert_vecs"], 32)
