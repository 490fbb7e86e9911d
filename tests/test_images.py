"""Images as people have them: paths, bytes, data URIs and columns of tables give the vectors of the library."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cases
import class_cases
import numpy as np
import pytest
import torch
from conftest import Ran
from PIL import Image
from transformers import CLIPImageProcessor, Qwen2VLModel
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

import sbertconv
from sbertconv.artifact.folder import read_artifact
from sbertconv.artifact.graph_inputs import GRIDDED, PATCHED
from sbertconv.artifact.manifest import problems_of
from sbertconv.converters.grids import grid_places, token_positions, window_mask
from sbertconv.converters.patches import resized_places
from sbertconv.errors import SbertconvError, UnsupportedOptionError
from sbertconv.plan.images import describe_image
from sbertconv.runtime.graph import Graph
from sbertconv.runtime.images import image_tensors, opened_image
from sbertconv.runtime.options import EngineOptions
from sbertconv.source.processors import NOTE, processors_on_pillow
from sbertconv.source.transformers_compat import interpolation
from sbertconv.tables.embedding import EmbedTable
from sbertconv.tables.encoding import TableOptions, embed_tables

ATOL = 1e-5
TURNED = 6  # EXIF's number of a quarter turn
RGBA = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 50, 4), dtype=np.uint8), "RGBA")


def as_bytes(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turned(image: Image.Image) -> Any:
    exif = image.getexif()
    exif[0x0112] = TURNED
    return exif


RGB = RGBA.convert("RGB")
PNG = as_bytes(RGB, "PNG")
FILES = {
    "plain.png": PNG,
    "transparent.png": as_bytes(RGBA, "PNG"),
    "TURNED.JPG": as_bytes(RGB, "JPEG", exif=turned(RGB)),
}


@pytest.fixture(scope="module")
def model() -> Any:
    return cases.clip(cases.st.Transformer)


@pytest.fixture(scope="session")
def clip_artifact(built_once: Any) -> Path:
    """A tiny CLIP model converted; do not write to it."""
    return Path(built_once("clip", lambda folder: sbertconv.to_onnx(cases.clip(cases.st.Transformer), folder)))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


URI = "data:image/png;base64," + base64.b64encode(PNG).decode()
INPUTS: dict[str, Callable[[Path], Any]] = {
    **{name: lambda folder, name=name: str(folder / name) for name in FILES},
    "a data URI": lambda _: URI,
    "a transparent Pillow image": lambda _: RGBA,
    "a grey Pillow image": lambda _: RGBA.convert("L"),
    "the name of no file": lambda folder: str(folder / "none.png"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_is_taken_for_the_same_as_by_the_library(
    name: str, model: Any, clip_artifact: Path, pictures: Path
) -> None:
    given = INPUTS[name](pictures)
    found = sbertconv.load(clip_artifact).encode([given, given])
    np.testing.assert_allclose(found, model.encode([given, given]), ATOL, ATOL)


def test_the_proof_looks_at_images_that_become_rgb(clip_artifact: Path) -> None:
    checks = {check["name"]: check for check in read_artifact(clip_artifact).manifest["parity"]["checks"]}
    assert checks["image: images in other modes"]["passed"]


def test_an_image_is_held_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "copy", None)  # a file that is nothing but large would be held three times
    assert opened_image(PNG).size == RGB.size


def test_bytes_are_an_image(clip_artifact: Path, model: Any) -> None:
    np.testing.assert_allclose(sbertconv.load(clip_artifact).encode(PNG), model.encode(RGB), ATOL, ATOL)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["http://a.example/fox.png"], "an address .*Download"),
        (["http://a.example/fox.png\n"], "an address .*Download"),
        ([b"no image"], "8 bytes: cannot be read as an image"),
        ([EPS], "cannot be read as an image"),  # Pillow would start Ghostscript
        ([PNG[:-40]], "cannot be read as an image"),
        (["data:image/png;base64,!"], "cannot be read as an image"),
        ([PNG, "a text"], "texts or images, one kind"),
    ],
)
def test_what_is_no_image_is_said(given: list[Any], said: str, clip_artifact: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=f"(?s){said}"):
        sbertconv.load(clip_artifact).encode(given)


def test_a_model_of_texts_takes_a_path_for_a_text(static_artifact: Path, pictures: Path) -> None:
    model, path = sbertconv.load(static_artifact), str(pictures / "plain.png")
    np.testing.assert_array_equal(model.encode([path]), model.encode([path.upper()]))


COLUMNS: dict[str, Callable[[Path], list[Any]]] = {
    "bytes": lambda _: [PNG, None, PNG],
    "bytes beside a path": lambda folder: [
        {"bytes": PNG, "path": None}, None, {"bytes": None, "path": str(folder / "plain.png")},
    ],
    "paths": lambda folder: [str(folder / "plain.png"), None, str(folder / "plain.png")],
}  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_holds_images(name: str, model: Any, clip_artifact: Path, pictures: Path) -> None:
    import pyarrow as pa

    table = pa.table({"id": [1, 2, 3], "picture": COLUMNS[name](pictures)})
    found = EmbedTable(folder=str(clip_artifact), column="picture", keep=("id",))(table)
    assert found.column_names == ["id", "embedding"]
    rows = found.column("embedding").to_pylist()
    assert rows[1] is None
    np.testing.assert_allclose([rows[0], rows[2]], model.encode([RGB, RGB]), ATOL, ATOL)


BROKEN = PNG[:20]


def test_a_column_of_errors_says_what_cannot_be_read(clip_artifact: Path, pictures: Path) -> None:
    import pyarrow as pa

    paths = [str(pictures / "plain.png"), None, "no/such.png", str(pictures / "plain.png")]
    embed = EmbedTable(folder=str(clip_artifact), column="picture", errors="why")
    found = embed(pa.table({"picture": paths}))
    assert [row is None for row in found.column("embedding").to_pylist()] == [False, True, True, False]
    assert found.column("why").to_pylist() == [None, None, "is str, and no image", None]
    with pytest.raises(UnsupportedOptionError, match="Input 1 is str"):
        replace(embed, errors=None)(pa.table({"picture": paths}))
    with pytest.raises(UnsupportedOptionError, match="Input 1: an image of 20 bytes: cannot be read"):
        sbertconv.load(clip_artifact).encode([PNG, BROKEN])


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_pictures_of_a_dataset_are_embedded_in_every_precision(
    precision: str, clip_artifact: Path, pictures: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = str(pictures / "plain.png")
    rows = [{"bytes": PNG, "path": None}, {"bytes": None, "path": None}, {"bytes": None, "path": path}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"picture": pa.array(rows, kind)}), pictures / "in.parquet")
    embed = EmbedTable(folder=str(clip_artifact), column="picture", precision=precision)
    options = TableOptions(nulls="error", on_error="skip")
    summary = embed_tables(embed, str(pictures / "in.parquet"), pictures / "out", options)
    assert (summary.rows, [bad.row for _, bad in summary.bad]) == (3, [1])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_picture_of_a_table_is_named_or_left_out(
    workers: int, model: Any, clip_artifact: Path, pictures: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [PNG, None, PNG, BROKEN, BROKEN, PNG]
    pq.write_table(pa.table({"id": range(6), "picture": rows}), pictures / "in.parquet")
    embed = EmbedTable(folder=str(clip_artifact), column="picture")

    def run(on_error: str) -> Any:
        options = TableOptions(on_error=on_error, nulls="null", rows_per_file=3, workers=workers)
        return embed_tables(embed, str(pictures / "in.parquet"), str(pictures / on_error), options)

    with pytest.raises(UnsupportedOptionError, match=r"in\.parquet, row 3: an image of 20 bytes: cannot be read"):
        run("fail")
    summary = run("skip")
    assert (summary.rows, [bad.row for _, bad in summary.bad]) == (6, [3, 4])
    found = pa.concat_tables(pq.read_table(path) for path in sorted((pictures / "skip").glob("*.parquet")))
    assert found.column_names == ["id", "picture", "embedding"]
    assert found.column("id").to_pylist() == [0, 1, 2, 5]
    expected = model.encode([RGB])[0]
    for row, picture in zip(found.column("embedding").to_pylist(), found.column("picture").to_pylist(), strict=True):
        assert (row is None) == (picture is None)
        assert row is None or np.allclose(row, expected, ATOL, ATOL)


def test_the_command_embeds_a_table_of_pictures(
    cli: Callable[..., Ran], model: Any, clip_artifact: Path, pictures: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"picture": [PNG, FILES["transparent.png"]]}), pictures / "in.parquet")
    expected = model.encode([RGB, RGB])
    table = ("--input", pictures / "in.parquet", "--column", "picture", "--output")
    ran = cli("encode", clip_artifact, *table, f"{pictures}/out/")
    assert ran.code == 0, ran.err
    (written,) = (pictures / "out").glob("*.parquet")
    found = np.array(pq.read_table(written).column("embedding").to_pylist())
    np.testing.assert_allclose(found, expected, ATOL, ATOL)
    ran = cli("encode", clip_artifact, *table, pictures / "out.npy")
    assert ran.code == 0, ran.err
    np.testing.assert_allclose(np.load(pictures / "out.npy"), expected, ATOL, ATOL)


def test_images_come_as_dicts_and_as_paths(model: Any, clip_artifact: Path, tmp_path: Path) -> None:
    converted = sbertconv.load(clip_artifact)
    image = Image.fromarray(np.random.default_rng(2).integers(0, 255, (40, 30, 3), dtype=np.uint8))
    path = str(tmp_path / "a picture.PNG")
    image.save(path)
    for inputs in ({"image": image}, [{"image": image}, image], path, [path], {"image": path}, {"text": "a fox"},
                   {"text": path}, [{"text": path}, "a fox"], [{"text": "a fox"}, {"text": ""}, "Berlin"]):  # fmt: skip
        theirs, ours = (side.encode(inputs) for side in (model, converted))
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    for text in ("no such picture.png", "a picture.PNG, said the fox"):
        np.testing.assert_allclose(converted.encode(text), model.encode(text), atol=1e-5, rtol=1e-5)
    for inputs, reason in (
        ("https://example.org/a.png?size=2", "an address"),
        ("https://example.org/a.png\n", "an address"),
        ("data:image/png;base64,AAAA", "cannot be read"),
        ({"image": "no such picture.png"}, "no image file"),
        ({"text": "a", "image": image}, "dict of 'text', 'image'"),
        ({"audio": np.zeros(3)}, "dict of 'audio'"),
    ):
        with pytest.raises(UnsupportedOptionError, match=reason):
            converted.encode(inputs)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model of pages and questions, and its folder."""
    model = class_cases.colpali(patches_alone=True)
    return model, sbertconv.to_onnx(model, tmp_path_factory.mktemp("pages") / "onnx").folder


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_a_page_has_the_vectors_of_the_library(method: str, pages: tuple[Any, Path], pictures: Path) -> None:
    model, converted = pages[0], sbertconv.load(pages[1])
    given = [RGBA, RGBA.convert("L"), RGB.convert("P"), RGB.resize((9, 70)), str(pictures / "TURNED.JPG"), URI]
    ours, theirs = (getattr(side, method)(given) for side in (converted, model))
    assert [len(one) for one in ours] == [29 if method == "encode_query" else 16] * len(given)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, np.asarray(other), ATOL, ATOL)
    np.testing.assert_allclose(getattr(converted, method)(RGB), np.asarray(getattr(model, method)(RGB)), ATOL, ATOL)


def test_a_question_finds_a_page_as_in_the_library(pages: tuple[Any, Path]) -> None:
    questions, images = ["a fox", "how many people live in Berlin?"], [RGB, RGB.resize((9, 70))]
    ours, theirs = (
        np.asarray(side.similarity(side.encode_query(questions), side.encode_document(images)))
        for side in (sbertconv.load(pages[1]), pages[0])
    )
    np.testing.assert_allclose(ours, theirs, 1e-4, 1e-4)  # sums of the products of 29 tokens


def test_a_table_of_pages_is_embedded(pages: tuple[Any, Path], pictures: Path) -> None:
    import pyarrow as pa

    table = pa.table({"picture": [str(pictures / "plain.png"), str(pictures / "plain.png")]})
    rows = (
        EmbedTable(folder=str(pages[1]), column="picture", encode={"task": "document"})(table)
        .column("embedding")
        .to_pylist()
    )
    for row in rows:
        np.testing.assert_allclose(row, np.asarray(pages[0].encode_document(RGB)), ATOL, ATOL)


def test_a_prompt_before_an_image_is_that_of_the_graph(tmp_path: Path) -> None:
    model = cases.llava(prompts=cases.PROMPTS, default_prompt_name="query")
    converted = sbertconv.load(sbertconv.to_onnx(model, tmp_path / "onnx").folder)
    for options in ({}, {"prompt_name": "query"}, {"prompt": cases.PROMPTS["query"]}):
        np.testing.assert_allclose(converted.encode(RGB, **options), model.encode(RGB, **options), ATOL, ATOL)
    for options in ({"prompt_name": "passage"}, {"prompt": ""}):
        with pytest.raises(UnsupportedOptionError, match=r"before an image \(have: 'query: '"):
            converted.encode(RGB, **options)
        np.testing.assert_allclose(converted.encode("a", **options), model.encode("a", **options), ATOL, ATOL)


@pytest.mark.parametrize("place", ["processor", "processing_kwargs"])
def test_what_a_template_makes_of_an_image_is_bounded(place: str, tmp_path: Path) -> None:
    model = cases.llava()
    of_images = "{% if m.content is not string and 'image' in m.content | map(attribute='type') %}"
    long = f"{{% for m in messages %}}{of_images}{{{{ 'a ' * 10**5 }}}}{{% endif %}}{{% endfor %}}"
    template = long + model[0].processor.chat_template
    if place == "processor":
        model[0].processor.chat_template = template
    else:
        model[0].processing_kwargs = {"chat_template": {"chat_template": template}}
    with pytest.raises(SbertconvError, match=r"chat template .* writes 200,\d\d\d characters"):
        sbertconv.to_onnx(model, tmp_path / "onnx")


@pytest.mark.parametrize("grid", [(1, 1), (1, 36), (18, 2), (2, 3), (4, 4), (5, 7), (3, 9)])
@pytest.mark.parametrize("table", [(4, 4), (6, 6), (3, 5)])
def test_places_are_resized_as_by_pytorch(table: tuple[int, int], grid: tuple[int, int]) -> None:
    places = torch.rand(*table, 8, generator=torch.Generator().manual_seed(0))
    options = {"size": grid, "mode": "bilinear", "align_corners": False, "antialias": True}
    (expected,) = torch.nn.functional.interpolate(places.permute(2, 0, 1)[None], **options)
    expected = expected.flatten(1).T
    found = resized_places(places, torch.tensor([grid, (2, 2)]), 36)
    torch.testing.assert_close(found[0, : len(expected)], expected)
    torch.testing.assert_close(found[0, len(expected) :], expected[:1].expand(36 - len(expected), -1))


@pytest.fixture(scope="module")
def patched() -> Any:
    """A model of images in patches."""
    return cases.siglip2()


@pytest.mark.parametrize("size", [(1, 1), (9, 1000), (1000, 3), (257, 255), (640, 480), (33, 47), (512, 513), (90, 30)])
def test_an_image_is_cut_into_the_patches_of_the_library(size: tuple[int, int], patched: Any) -> None:
    section = describe_image(patched[0])
    assert section["patches"] == {"size": 16, "most": 256}
    ours, theirs = image_tensors([RGB.resize(size)], section), patched[0].preprocess([RGB.resize(size)])
    assert list(ours) == list(PATCHED)
    for name, tensor in ours.items():
        np.testing.assert_array_equal(tensor, theirs[name].numpy(), err_msg=name)


def test_an_image_of_one_patch_beside_none_is_refused(patched: Any) -> None:
    with pytest.raises(UnsupportedOptionError, match="one patch wide"):
        image_tensors([RGB.resize((1, 1000))], describe_image(patched[0]))
    # PyTorch gives other numbers than it does for a wider grid of the same rows; if this fails, the refusal is to go
    places = torch.arange(16.0).reshape(4, 1, 4).expand(4, 4, 4).permute(2, 0, 1)[None]  # alike along every row
    options = {"mode": "bilinear", "align_corners": False, "antialias": True}
    one, two = (torch.nn.functional.interpolate(places, size=(7, width), **options) for width in (1, 2))
    assert not torch.allclose(one[..., 0], two[..., 0])


@pytest.fixture(scope="module")
def grids() -> Any:
    """A model of pages that become tokens of any number."""
    return class_cases.colqwen2()


@pytest.mark.parametrize("rows", [1, 3])
def test_an_array_whose_rows_may_be_channels_is_refused(rows: int, grids: Any) -> None:
    section, pixels = describe_image(grids[0]), np.zeros((rows, 9, 3), np.uint8)
    with pytest.raises(UnsupportedOptionError, match="which the library takes for channels"):
        image_tensors([pixels], section)
    assert image_tensors([Image.fromarray(pixels)], section)


SIZES = [(33, 47), (40, 50), (9, 70), (200, 31), (5, 5), (512, 300), (1, 200)]


@pytest.mark.parametrize("size", SIZES)
def test_an_image_becomes_the_tokens_of_the_library(size: tuple[int, int], grids: Any) -> None:
    section = describe_image(grids[0])
    ours, theirs = image_tensors([RGB.resize(size)], section), grids[0].preprocess([RGB.resize(size)])
    assert list(ours) == list(GRIDDED)
    np.testing.assert_array_equal(ours["image_grid_thw"], theirs["image_grid_thw"].numpy())
    groups, pixels = ours["patch_groups"], theirs["pixel_values"].numpy()
    np.testing.assert_array_equal(groups.reshape(pixels.shape), pixels)
    row, place = section["tokens"]["input_ids"], section["grid"]["place"]
    assert [*row[:place], *[row[place]] * len(groups), *row[place + 1 :]] == theirs["input_ids"][0].tolist()


@pytest.mark.filterwarnings("ignore:Passing `min_pixels`")
def test_pixels_are_as_few_and_as_many_as_a_module_calls_for(grids: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kwargs = {"image": {"min_pixels": 32 * 32, "max_pixels": 48 * 48}}
    monkeypatch.setattr(grids[0], "processing_kwargs", kwargs)
    section = describe_image(grids[0])
    for image in map(RGB.resize, SIZES[:-1]):
        ours, theirs = image_tensors([image], section), grids[0].preprocess([image])
        np.testing.assert_array_equal(ours["image_grid_thw"], theirs["image_grid_thw"].numpy())


def test_an_image_of_more_tokens_than_the_model_takes_is_refused(grids: Any) -> None:
    """The library cuts their row in silence."""
    section = describe_image(grids[0])
    longest = section["grid"]["longest"]
    assert longest == grids.max_seq_length
    size = (1000, 30)
    assert len(grids[0].preprocess([RGB.resize(size)])["input_ids"][0]) == longest
    with pytest.raises(UnsupportedOptionError, match=rf"becomes \d+ tokens \(have: up to {longest}"):
        image_tensors([RGB.resize(size)], section)


def test_three_numbers_of_a_pixel_are_resized_as_such(grids: Any) -> None:
    """Pillow has modes whose numbers have signs; to the library they are an array."""
    section = {**describe_image(grids[0]), "do_convert_rgb": None}
    numbers = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    ours = [image_tensors([Image.fromarray(numbers, mode)], section)["patch_groups"] for mode in ("RGB", "LAB", "HSV")]
    np.testing.assert_array_equal(ours[0], ours[1])
    np.testing.assert_array_equal(ours[0], ours[2])


@pytest.mark.parametrize("merge", [1, 2, 3])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 1), (1, 5)])
def test_places_on_a_grid_are_those_of_transformers(grid: tuple[int, int], merge: int) -> None:
    sizes = torch.tensor([[1, grid[0] * merge, grid[1] * merge]])
    expected = get_vision_position_ids(sizes, merge)
    torch.testing.assert_close(grid_places(sizes, len(expected), merge), expected)


@pytest.mark.parametrize(("before", "behind"), [(0, 3), (4, 0), (2, 5)])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 1), (1, 5)])
def test_positions_of_tokens_are_those_of_transformers(grid: tuple[int, int], before: int, behind: int) -> None:
    kinds = torch.tensor([[0] * before + [1] * (grid[0] * grid[1]) + [0] * behind])
    sizes, places = torch.tensor([[1, 2 * grid[0], 2 * grid[1]]]), partial(Qwen2VLModel.get_vision_position_ids, None)
    config = SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2))
    model: Any = SimpleNamespace(config=config, get_vision_position_ids=places)
    expected, _ = Qwen2VLModel.get_rope_index(model, torch.zeros_like(kinds), kinds, sizes)
    torch.testing.assert_close(token_positions(kinds, sizes, 2), expected)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 4), (5, 1), (3, 7)])
def test_windows_of_an_image_are_those_of_transformers(grid: tuple[int, int]) -> None:
    sizes = torch.tensor([[1, 2 * grid[0], 2 * grid[1]]])
    order, ends = get_vision_window_index(sizes, 2, window_size=32, patch_size=8)
    windows = torch.zeros(4 * len(order), dtype=torch.int64)
    windows[(4 * order[:, None] + torch.arange(4)).flatten()] = torch.repeat_interleave(ends.diff()).long()
    places = grid_places(sizes, len(windows), 2)
    torch.testing.assert_close(window_mask(places, 4), windows[None] == windows[:, None])


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (9, 1)])
def test_a_table_is_resized_to_a_grid_as_by_transformers(grid: tuple[int, int], mode: str, align: bool) -> None:
    sizes = torch.tensor([[1, 2 * grid[0], 2 * grid[1]]])
    expected = get_vision_interpolation_indices_and_weights(sizes, 6, mode, align, spatial_merge_size=2)
    encoder = SimpleNamespace(num_grid_per_side=6, interpolation_mode=mode, interpolation_align_corners=align)
    found = interpolation(encoder, grid_places(sizes, len(expected[0]), 2), sizes)
    torch.testing.assert_close(tuple(found.values()), expected)


GRIDDED_WAYS: dict[str, Callable[[Any, Path], Any]] = {
    "onnx": lambda model, folder: sbertconv.to_onnx(model, folder, engines=["onnxruntime", "openvino"]),
    "torch": sbertconv.to_torch,
}


@pytest.mark.parametrize("way", cases.GRIDDED["colqwen2"])
def test_pages_of_any_size_have_the_vectors_of_the_library(way: str, grids: Any, tmp_path: Path) -> None:
    converted = sbertconv.load(GRIDDED_WAYS[way](grids, tmp_path / "pages").folder, format=way)
    images = [RGBA, RGB.convert("P"), *(RGB.resize(size) for size in SIZES)]
    for method in ("encode", "encode_query", "encode_document"):
        ours, theirs = (getattr(side, method)(images) for side in (converted, grids))
        assert len({len(one) for one in ours}) > 1
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, np.asarray(other), ATOL, ATOL)
    with pytest.raises(UnsupportedOptionError, match="up to 200 times as long as wide"):
        converted.encode(RGB.resize((1, 201)))


@pytest.mark.parametrize("name", ["text", "input_ids", "attention_mask", "patch_groups"])
def test_an_input_of_images_has_the_name_of_what_it_is_given(name: str, clip_artifact: Path) -> None:
    manifest: Any = read_artifact(clip_artifact).manifest
    texts, images = ({**graph, "inputs": [*graph["inputs"]]} for graph in manifest["graphs"])
    images["inputs"][0] = {**images["inputs"][0], "name": name}
    (problem,) = problems_of({**manifest, "graphs": [texts, images]})
    assert problem.startswith(f"graphs[1].inputs[0].name: '{name}', and the graph takes images (have: pixel_values, ")
    texts["inputs"][0] = {**texts["inputs"][0], "name": "pixel_values"}
    (problem,) = problems_of({**manifest, "graphs": [texts, manifest["graphs"][1]]})
    assert problem.startswith("graphs[0].inputs[0].name: 'pixel_values', and the graph takes texts (have: input_ids, ")


@pytest.mark.parametrize("names", [PATCHED, GRIDDED])
def test_what_an_image_becomes_goes_by_name_and_not_by_place(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest names inputs in the order that they have in the file, which `--input-name` chooses."""
    made = {name: np.full(1, index) for index, name in enumerate(names)}
    monkeypatch.setattr("sbertconv.runtime.graph.image_tensors", lambda images, section: made)
    image = {"patches": {}} if names is PATCHED else {"grid": {}}
    section: Any = {"modality": "image", "image": image, "outputs": []}
    section["inputs"] = [{"name": name} for name in reversed(names)]
    artifact: Any = None
    ((_, tensors),) = Graph(artifact, section, "onnx", "onnxruntime", EngineOptions()).prepared([RGB])
    assert tensors == made


MESSAGE = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "image": RGB}]}]
NOT_TAKEN: dict[str, tuple[Any, str]] = {
    "a video": ({"video": np.zeros((4, 9, 9, 3), np.uint8)}, "a dict of 'video'"),
    "the address of a video": ("https://youtu.be/a", "names a video"),
    "a text beside an image": ({"text": "a", "image": RGB}, "a dict of 'text', 'image'"),
    "a message of two parts": (MESSAGE, "the content of one text"),
}


@pytest.mark.parametrize(("model_type", "way"), [(name, way) for name in cases.QWEN_VL for way in cases.GRIDDED[name]])
def test_images_of_any_size_among_texts_have_the_vectors_of_the_library(
    model_type: str, way: str, tmp_path: Path
) -> None:
    """Positions in rows and columns; windows; a table of places, and features added after the first layer."""
    model = cases.qwen_vl(model_type, prompts=cases.PROMPTS, default_prompt_name="query")
    folder = GRIDDED_WAYS[way](model, tmp_path / "model").folder
    engines = read_artifact(folder).manifest["engines"][way]
    for converted in (sbertconv.load(folder, format=way, engine=engine) for engine in engines):
        for given in ([RGBA, *(RGB.resize(size) for size in SIZES)], class_cases.TEXTS):
            np.testing.assert_allclose(converted.encode(given), model.encode(given), ATOL, ATOL)
    for given, said in NOT_TAKEN.values():
        with pytest.raises(UnsupportedOptionError, match=said):
            converted.encode(given)


def test_a_video_is_a_text_to_a_model_that_takes_none(static_artifact: Path, clip_artifact: Path) -> None:
    for folder in (static_artifact, clip_artifact):
        assert sbertconv.load(folder).encode("https://youtu.be/a").ndim == 1


@pytest.mark.parametrize(
    ("convert", "mask", "said"),
    [
        (sbertconv.to_tf, {}, "images as tokens of any number .*onnx and torch"),
        (sbertconv.to_onnx, {"keep_only_token_ids": [3]}, "count in queries than in documents, of images of any size"),
        (lambda *given: sbertconv.to_onnx(*given, target="tensorrt"), {}, "TensorRT is given images of one size"),
    ],
)
def test_what_pages_of_any_size_cannot_be_is_refused(convert: Any, mask: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(SbertconvError, match=f"(?s){said}"):
        convert(class_cases.colqwen2(**mask), tmp_path / "pages")


@pytest.mark.parametrize("options", [{"token_type_ids": True}, {"text_input": True}])
def test_options_of_texts_leave_the_graph_of_images_alone(options: Any, model: Any, tmp_path: Path) -> None:
    artifact = sbertconv.to_onnx(model, tmp_path / "model", **options)
    inputs = {one["name"]: [entry["name"] for entry in one["inputs"]] for one in artifact.manifest["graphs"]}
    assert inputs["image"] == ["pixel_values"]
    assert len(inputs["text"]) > 1 or inputs["text"] == ["text"]


class OfItsOwn:
    """A module that gives other tensors beside the pixels than any processor of the table."""

    def __init__(self, module: Any, **given: Callable[[Any], Any]) -> None:
        self.module, self.given = module, given
        self.processor = module.processor

    def preprocess(self, images: list[Any], **options: Any) -> dict[str, Any]:
        found = self.module.preprocess(images, **options)
        return {**found, **{name: make(found) for name, make in self.given.items()}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sizes": lambda found: found["pixel_values"].sum((1, 2))}, r"CLIPProcessor.*for each image, sizes"),
        ({"pixel_values": lambda found: found["pixel_values"][:, None]}, r"pixel_values \[1, 1, 3, 32, 32\]"),
        ({"pixel_values": lambda found: found["pixel_values"] + 1}, "other pixel values of an image of 64 x 64"),
        ({"pixel_values": lambda found: found["none"]}, "takes no image alone: KeyError"),
    ],
)
def test_what_is_made_of_an_image_beside_its_settings_is_refused(given: Any, said: str, model: Any) -> None:
    with pytest.raises(UnsupportedOptionError, match=f"(?s){said}"):
        describe_image(OfItsOwn(model[0], **given))


@pytest.mark.parametrize(
    "wrong",
    [
        {"resample": "x"},
        {"resample": float("nan")},
        {"rescale_factor": float("nan")},
        {"rescale_factor": "x"},
        {"size": {"height": 10**9, "width": 10**9}},
        {"size": {"shortest_edge": -1}},
        {"crop_size": None},
        {"image_mean": (0.5,) * 1000},
        {"image_std": [0, 0, 0]},
        {"crop_pct": "x", "size": {"shortest_edge": 8}},
    ],
)
def test_settings_of_images_that_no_folder_has_are_refused_before_anything_is_traced(wrong: dict[str, Any]) -> None:
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    vars(processor).update(wrong)
    with pytest.raises(UnsupportedOptionError, match="image processor CLIPImageProcessor"):
        describe_image(SimpleNamespace(processor=processor))


def test_images_are_prepared_with_pillow_while_a_model_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers takes the processor on torchvision where that is installed, whose pixels are others."""
    import transformers

    class TorchvisionBackend:
        size = 30

        def to_dict(self) -> dict[str, int]:
            return {"size": self.size}

    class SomeImageProcessor(TorchvisionBackend):
        pass

    class SomeImageProcessorPil(SimpleNamespace):
        @classmethod
        def from_dict(cls, settings: dict[str, int]) -> SomeImageProcessorPil:
            return cls(**settings)

    monkeypatch.setattr(transformers, "SomeImageProcessorPil", SomeImageProcessorPil, raising=False)
    both, alone, text, model = (torch.nn.Module() for _ in range(4))
    both.processor = SimpleNamespace(image_processor=SomeImageProcessor())
    alone.processor, text.processor = SomeImageProcessor(), SimpleNamespace(image_processor=None)
    for name, part in (("0", both), ("1", alone), ("2", text)):
        model.add_module(name, part)
    heard: list[str] = []
    with processors_on_pillow(model, heard):
        for processor in (both.processor.image_processor, alone.processor):
            assert (type(processor), processor.size) == (SomeImageProcessorPil, 30)
    assert type(both.processor.image_processor) is type(alone.processor) is SomeImageProcessor
    assert heard == [NOTE]
    with processors_on_pillow(text, heard):
        assert heard == [NOTE]
