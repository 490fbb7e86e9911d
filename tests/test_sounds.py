"""Sounds: the spectrograms of the library's feature extractors, and sounds as people have them."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cases
import numpy as np
import pytest
from transformers import (
    ASTFeatureExtractor,
    ClapFeatureExtractor,
    Data2VecAudioModel,
    HubertModel,
    MoonshineModel,
    SeamlessM4TFeatureExtractor,
    SEWDModel,
    SEWModel,
    SpeechT5FeatureExtractor,
    UniSpeechModel,
    UniSpeechSatModel,
    Wav2Vec2ConformerModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMModel,
    WhisperFeatureExtractor,
)

import sbertconv
from sbertconv.artifact.folder import MANIFEST
from sbertconv.artifact.json_reading import read_json
from sbertconv.artifact.manifest import problems_of, problems_of_sound
from sbertconv.errors import SbertconvError, UnsupportedOptionError
from sbertconv.plan.sounds import describe_audio, describe_sound, fewest_taken
from sbertconv.runtime.sounds import feature_shape, sound_features, sound_rows, waves
from sbertconv.source.routes import find_routes
from sbertconv.tables.embedding import EmbedTable

RATE = 16_000
ATOL = 1e-5


def noise(samples: int, seed: int = 4) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).normal(size=samples)).astype(np.float32)


EXTRACTORS: dict[str, Callable[[], Any]] = {
    "whisper": lambda: WhisperFeatureExtractor(),
    "whisper, large": lambda: WhisperFeatureExtractor(feature_size=128, chunk_length=5),
    "clap": lambda: ClapFeatureExtractor(truncation="rand_trunc"),
    "clap, repeated": lambda: ClapFeatureExtractor(truncation="rand_trunc", padding="repeat", max_length_s=1),
    "clap, filled": lambda: ClapFeatureExtractor(
        truncation="rand_trunc", padding="pad", frequency_min=50, max_length_s=1
    ),
    "ast": lambda: ASTFeatureExtractor(num_mel_bins=64),
    "ast, short": lambda: ASTFeatureExtractor(num_mel_bins=64, max_length=50, do_normalize=False),
}


@pytest.mark.parametrize("name", ["hop_length", "sampling_rate", "n_samples", "feature_size"])
@pytest.mark.parametrize("value", [0, -1, 10**12, float("nan"), "a", None, [2]])
def test_settings_of_sounds_that_no_folder_has_are_refused_before_anything_is_traced(name: str, value: Any) -> None:
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    setattr(extractor, name, value)
    if (name, value) != ("n_samples", None):  # which is filled to nothing, and frames are missing then
        with pytest.raises(UnsupportedOptionError, match="feature extractor WhisperFeatureExtractor: "):
            describe_sound(SimpleNamespace(processor=extractor))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"feature_size": 10**9}, r"feature_size: 1000000000 \(have: a number from 0 to 1,024"),
        ({"num_mel_bins": float("nan")}, r"num_mel_bins: NaN \(have"),
        ({"n_fft": 10**9}, r"n_fft: 1000000000 \(have"),
        ({"n_fft": 65536, "feature_size": 1024}, "1,024 mel filters of 65,536 samples are too many"),
        ({"frame_length_ms": 60_000, "sampling_rate": 1_000_000}, "samples are too many"),
        ({"win_length": -1}, r"win_length: -1 \(have"),
        ({"sampling_rate": 10**9}, r"sampling_rate: 1000000000 \(have"),
        ({"audio_tokenizer_name_or_path": "../other"}, "a model has its own parts"),
        ({"backbone": "another/model"}, "a model has its own parts"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_mel_filters_that_would_fill_the_memory_are_refused_before_they_are_made(
    settings: dict[str, Any], said: str, nested: bool, bert_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(bert_folder)
    name, content = ("processor_config.json", {"a": [settings]}) if nested else ("preprocessor_config.json", settings)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(sbertconv.SourceError, match=said):
        sbertconv.inspect(folder)


# The extractor's own arithmetic is float32 for Whisper, and its logarithm enlarges rounding
TOLERANCES = {"whisper": 1e-4, "whisper, large": 1e-4}


@pytest.mark.parametrize("name", EXTRACTORS)
def test_a_spectrogram_is_that_of_the_library(name: str) -> None:
    extractor = EXTRACTORS[name]()
    section = describe_sound(SimpleNamespace(processor=extractor))
    given = {"padding": "max_length"} if name.startswith("whisper") else {}
    for samples in (401, 5_003, 16_001, 40_000):
        sound = noise(samples)
        theirs = extractor([sound], sampling_rate=extractor.sampling_rate, return_tensors="np", **given)
        ours = sound_features([sound], section)
        assert ours.shape == (1, *feature_shape(section))
        np.testing.assert_allclose(
            ours, theirs[section["tensors"][0]], 0, TOLERANCES.get(name, ATOL), err_msg=str(samples)
        )


ROWS: dict[str, Callable[[], Any]] = {
    "seamless": lambda: SeamlessM4TFeatureExtractor(),
    "seamless, as Wav2Vec2-BERT has it": lambda: SeamlessM4TFeatureExtractor(padding_value=1),
    "seamless, small": lambda: SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20, sampling_rate=8000),
}
# Samples -> a sound; of those that hardly change from frame to frame rounding is most of what is left
KINDS: dict[str, Callable[[int], np.ndarray]] = {
    "noise": noise,
    "silence": lambda samples: np.zeros(samples, np.float32),
    "constant": lambda samples: np.full(samples, 0.3, np.float32),
    "as many samples as frames are apart": lambda samples: np.sin(np.arange(samples) / 80 * np.pi).astype(np.float32),
    "click": lambda samples: (np.arange(samples) == samples // 2).astype(np.float32),
    "quiet": lambda samples: noise(samples) * np.float32(1e-6),
    "whole numbers": lambda samples: (noise(samples) * 1000).astype("<i2"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ROWS)
def test_rows_are_those_of_the_library_to_the_last_bit(name: str, kind: str) -> None:
    extractor = ROWS[name]()
    section = describe_sound(SimpleNamespace(processor=extractor))
    shortest = section["rows"]["shortest"]
    assert shortest == 560  # two frames: of one alone the library makes no row that counts
    for samples in (shortest, shortest + 1, 719, 720, 721, 879, 880, 881, 5_003, 16_001):
        sound = KINDS[kind](samples)
        theirs = extractor([sound], sampling_rate=extractor.sampling_rate, return_tensors="np", padding=True)
        ((rows, mask),) = sound_rows([sound], section, None)
        assert rows.dtype == np.float32
        assert rows.shape[1:] == feature_shape(section)[1:]
        np.testing.assert_array_equal(rows, theirs["input_features"][0], err_msg=str(samples))
        np.testing.assert_array_equal(mask, theirs["attention_mask"][0], err_msg=str(samples))


def wav(samples: np.ndarray, channels: int = 1, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


SOUND = np.round(noise(9_000).clip(-1, 1) * 32767).astype(np.float32) / 32768  # what a file of 16 bits can hold
FILE = wav(SOUND * 32768 / 32767)


@pytest.fixture(scope="session")
def clap_artifact(built_once: Any) -> Path:
    """A tiny CLAP model converted; do not write to it."""
    return Path(built_once("clap", lambda folder: sbertconv.to_onnx(cases.clap(), folder)))


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return np.asarray(cases.clap().encode([{"array": SOUND, "sampling_rate": RATE}]))[0]


INPUTS: dict[str, Callable[[Path], Any]] = {
    "samples": lambda _: SOUND,
    "several samples": lambda _: [SOUND],
    "samples and their rate": lambda _: {"array": SOUND, "sampling_rate": RATE},
    "a dict of its modality": lambda _: [{"audio": {"array": SOUND, "sampling_rate": RATE}}],
    "a path": lambda folder: str(folder / "a.wav"),
    "the bytes of a file": lambda _: FILE,
}


@pytest.mark.parametrize("name", INPUTS)
def test_a_sound_has_the_vector_of_the_library(
    name: str, clap_artifact: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(FILE)
    found = sbertconv.load(clap_artifact).encode(INPUTS[name](tmp_path))
    np.testing.assert_allclose(found, expected.reshape(found.shape), ATOL, ATOL)


def test_a_column_holds_sounds(clap_artifact: Path, expected: np.ndarray) -> None:
    import pyarrow as pa

    table = pa.table({"sound": [{"bytes": FILE, "path": "a.wav"}, None]})
    rows = EmbedTable(folder=str(clap_artifact), column="sound")(table).column("embedding").to_pylist()
    np.testing.assert_allclose(rows[0], expected, ATOL, ATOL)
    assert rows[1] is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"array": SOUND, "sampling_rate": 8000}, "8000 samples per second .have: 16000.*Resample"),
        (wav(SOUND, rate=8000), "8000 samples per second"),
        (wav(np.repeat(SOUND, 2), channels=2), "2 channels"),
        (FILE[:30], "cannot be read as a WAV file"),
        (FILE[:2000], "978 samples, and its header says 9,000"),
        (FILE[:16] + b"\xff" * 4 + FILE[20:], "cannot be read as a WAV file"),
        ([{"array": SOUND, "sampling_rate": np.array([RATE, RATE])}], "samples per second"),
        ([np.full(500, 1e300)], "no numbers"),
        ([np.full(500, 3e38, np.float32)], "too large"),
        (noise(40_000), "40,000 samples .have: up to 32,000, 2 s.*random.*Cut it"),
        ([np.zeros(0, np.float32)], "without samples"),
        ([np.array([np.nan], np.float32)], "no numbers"),
        ([np.zeros((2, 300), np.float32)], r"float32 \[2, 300\] is not a sound"),
        ([b"ID3 of an mp3"], "is not a sound|cannot be read"),
        ([SOUND, "a text"], "texts or sounds, one kind at a time"),
        (["https://h.example/bark.wav"], "bark.wav: an address .have: WAV files.*arrays.*Download"),
        (["https://h.example/bark.mp3\n"], "bark.mp3: an address"),
        ({"audio": "https://h.example/bark.ogg"}, "bark.ogg: an address"),
    ],
)
def test_what_is_no_sound_of_the_model_is_said(given: Any, said: str, clap_artifact: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=f"(?s){said}"):
        sbertconv.load(clap_artifact).encode(given)


@pytest.mark.parametrize("ending", [".mp3", ".wav", ".flac", ".ogg", ".OGG", ".aac"])
def test_a_sound_of_another_kind_of_file_is_no_text(ending: str, clap_artifact: Path, tmp_path: Path) -> None:
    file = tmp_path / f"bark{ending}"
    file.write_bytes(b"ID3 of an mp3")
    with pytest.raises(
        UnsupportedOptionError,
        match=rf"(?s)bark{ending}: cannot be read as a WAV file.*arrays of samples.*Decode",
    ):
        sbertconv.load(clap_artifact).encode([str(file)])


def seamless(**settings: Any) -> Any:
    return cases.wav2vec2_bert(SeamlessM4TFeatureExtractor(num_mel_bins=20, **{"feature_size": 20, **settings}))


DATA2VEC = {"num_conv_pos_embeddings": 1}  # layers of convolutions, with kernels of their own


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: cases.clap("fusion"), "truncation='fusion'"),
        (
            lambda: cases.wave_encoder(Data2VecAudioModel, SpeechT5FeatureExtractor(), **DATA2VEC),
            "SpeechT5FeatureExtractor is not supported .have: Whisper.*Clap.*, Wav2Vec2FeatureExtractor.",
        ),
        (
            lambda: cases.wave_encoder(Data2VecAudioModel, Wav2Vec2FeatureExtractor(feature_size=2), **DATA2VEC),
            "Wav2Vec2FeatureExtractor with feature_size=2",
        ),
        (lambda: seamless(return_attention_mask=False), "with return_attention_mask=False"),
        (lambda: seamless(padding_side="left"), "with padding_side='left'"),
    ],
    ids=["a part at random", "another", "waves of two channels", "rows without a mask", "rows filled on the left"],
)
def test_an_extractor_that_is_not_known_is_refused_by_name(model: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(SbertconvError, match=said):
        sbertconv.to_onnx(model(), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.filterwarnings("error")
def test_a_sound_of_the_one_frame_that_is_left_out_is_said() -> None:
    section = describe_sound(SimpleNamespace(processor=EXTRACTORS["whisper"]()))
    section = {**section, "samples": None, "frames": 4, "center": False}
    with pytest.raises(UnsupportedOptionError, match=r"400 samples \(have: 560 and more\)"):
        sound_features([noise(400)], section)


def test_settings_of_sounds_that_are_no_numbers_are_one_error() -> None:
    extractor = ClapFeatureExtractor(truncation="rand_trunc", max_length_s=float("inf"))
    with pytest.raises(UnsupportedOptionError, match="ClapFeatureExtractor: cannot be described"):
        describe_sound(SimpleNamespace(processor=extractor))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"samples": None, "frames": 1, "drop_last_frame": True}, "frames is 1, and the last one is left out"),
        ({"mel": {"lowest": 0.0, "highest": 1e-300}}, "mel: from 0.0 to 1e-300 Hz"),
    ],
)
def test_settings_of_sounds_that_leave_nothing_are_refused(
    wrong: dict[str, Any], said: str, clap_artifact: Path
) -> None:
    manifest = read_json(clap_artifact / MANIFEST, dict)
    (graph,) = (graph for graph in manifest["graphs"] if graph["modality"] == "audio")
    assert not problems_of(manifest)
    graph["sound"] |= {**wrong, "mel": {**graph["sound"]["mel"], **wrong.get("mel", {})}}
    (problem,) = problems_of(manifest)
    assert problem.endswith(f".sound.{said}")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"frames": 4}, "samples, frames and rows: one of them is due"),
        ({"tensors": ["input_features"]}, "tensors is input_features (have: one, and with rows their mask)"),
        (
            {"layout": ["filters", "frames"]},
            "layout is filters, frames (have: frames, filters, of which rows are made)",
        ),
        ({"hop_length": 161}, "rows.shortest is 560, and a row that counts has 561 samples"),
    ],
)
def test_rows_that_no_sound_makes_are_refused(wrong: dict[str, Any], said: str) -> None:
    section = describe_sound(SimpleNamespace(processor=SeamlessM4TFeatureExtractor()))
    assert not problems_of_sound(section)
    assert problems_of_sound({**section, **wrong}) == [said]


LAYERED = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
RELATIVE = {"position_embeddings_type": "relative", "max_source_positions": 60}
MOONSHINE = {
    **{f"{part}_num_attention_heads": 4 for part in ("encoder", "decoder")},
    **{f"{part}_num_hidden_layers": 2 for part in ("encoder", "decoder")},
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
# Each mechanism of the models of waves: what is normalized, how places are told, what makes fewer frames of them
WAVES: dict[str, tuple[Any, dict[str, Any]]] = {
    "wav2vec2, layer": (Wav2Vec2Model, LAYERED),
    "wav2vec2, adapter": (Wav2Vec2Model, {"add_adapter": True, "num_adapter_layers": 2, "output_hidden_size": 32}),
    "hubert": (HubertModel, {"num_conv_pos_embeddings": 15}),
    "hubert, batch norm": (HubertModel, {"conv_pos_batch_norm": True}),
    "wavlm": (WavLMModel, {}),
    "unispeech": (UniSpeechModel, {}),
    "unispeech-sat": (UniSpeechSatModel, LAYERED),
    "data2vec": (Data2VecAudioModel, {"num_conv_pos_embeddings": 2}),
    "sew": (SEWModel, {"squeeze_factor": 2}),
    "sew-d": (SEWDModel, {"squeeze_factor": 2, "max_position_embeddings": 64, "position_buckets": 32}),
    "conformer, rotary": (Wav2Vec2ConformerModel, {"position_embeddings_type": "rotary"}),
    "moonshine": (MoonshineModel, MOONSHINE),  # its encoder, which the library takes out of the whole
}


def checked(artifact: Any, model: Any, lengths: list[int], form: str | None = None) -> sbertconv.Embedder:
    """Sounds of several lengths in one call, each of which has the vector that it has alone in the library."""
    embedder = sbertconv.load(artifact.folder, format=form)
    sounds = [noise(length, seed) for seed, length in enumerate(lengths)]
    expected = np.concatenate([model.encode([sound]) for sound in sounds])
    np.testing.assert_allclose(embedder.encode(sounds), expected, ATOL, ATOL)
    return embedder


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # the library's own, of WavLM's mask
@pytest.mark.parametrize("name", WAVES)
def test_a_wave_has_the_vector_that_it_has_alone(name: str, tmp_path: Path) -> None:
    kind, settings = WAVES[name]
    model = cases.wave_encoder(kind, **settings)
    artifact = sbertconv.to_onnx(model, tmp_path / "model")
    (graph,) = artifact.manifest["graphs"]
    shortest = graph["wave"]["shortest"]
    assert not artifact.manifest["sees_padding"]
    assert graph["inputs"] == [{"name": "input_values", "dtype": "float32", "shape": ["batch", "samples"]}]
    embedder = checked(artifact, model, [shortest, 2_701, 1_202, shortest + 1, 2_701])
    with pytest.raises(RuntimeError):
        model.encode([noise(shortest - 1)])
    with pytest.raises(UnsupportedOptionError, match=f"{shortest - 1} samples .have: {shortest} and more"):
        embedder.encode([noise(shortest - 1)])


def litert(model: Any, folder: Path) -> Any:
    pytest.importorskip("tensorflow")
    return sbertconv.to_tf(model, folder, formats=["keras", "litert"])


def keras_to_onnx(model: Any, folder: Path) -> Any:
    pytest.importorskip("tf2onnx")
    sbertconv.to_tf(model, folder.with_name("keras"), formats=["keras"])
    return sbertconv.to_onnx(folder.with_name("keras") / "keras" / "model.keras", folder)


def openvino(model: Any, folder: Path) -> Any:
    pytest.importorskip("openvino")
    return sbertconv.to_openvino(model, folder)


@pytest.mark.parametrize("convert", [openvino, litert, keras_to_onnx], ids=lambda convert: convert.__name__)
def test_other_engines_take_waves_of_any_length(convert: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    model = cases.CASES["wav2vec2"].build()
    artifact = convert(model, tmp_path / "model")
    for form in artifact.formats:
        checked(artifact, model, [20, 701, 1_202, 701], form)


# Each way to tell places, and what makes fewer frames of the rows: the library's batches let padding into that
ROW_MODELS: dict[str, dict[str, Any]] = {
    "relative": {"position_embeddings_type": "relative", "max_source_positions": 40},
    "rotary": {"position_embeddings_type": "rotary"},
    "adapter": {"add_adapter": True, "num_adapter_layers": 2, "output_hidden_size": 16},
}


@pytest.mark.parametrize("name", ROW_MODELS)
def test_a_sound_of_rows_has_the_vector_that_it_has_alone(name: str, tmp_path: Path) -> None:
    model = cases.wav2vec2_bert(**ROW_MODELS[name])
    artifact = sbertconv.to_onnx(model, tmp_path / "model")
    (graph,) = artifact.manifest["graphs"]
    assert [entry["shape"] for entry in graph["inputs"]] == [["batch", "sequence", 40], ["batch", "sequence"]]
    embedder = checked(artifact, model, [560, 719, 720, 880, 5_003, 5_000, 719])
    with pytest.raises(UnsupportedOptionError, match=r"559 samples .have: 560 "):
        embedder.encode([noise(559)])
    if "max_source_positions" in ROW_MODELS[name]:
        longest = 560 + 320 * 39
        assert graph["longest"] == longest
        checked(artifact, model, [longest])
        with pytest.raises(UnsupportedOptionError, match=rf"{longest + 1:,} samples .*\nCut it"):
            embedder.encode([noise(longest + 1)])


def test_a_model_of_sounds_takes_no_texts_for_its_tokenizer(tmp_path: Path) -> None:
    model = cases.wav2vec2_bert()
    assert {"text", "audio"} <= set(model.modalities)
    with pytest.raises(TypeError):
        model.encode(["a text"])
    assert [route.name for route in find_routes(model)] == ["audio"]


def test_a_wave_is_no_longer_than_the_graph_has_places(tmp_path: Path) -> None:
    model = cases.wave_encoder(Wav2Vec2ConformerModel, **RELATIVE)
    artifact = sbertconv.to_onnx(model, tmp_path / "model")
    longest = artifact.manifest["graphs"][0]["longest"]
    embedder = checked(artifact, model, [longest, 301])
    with pytest.raises(UnsupportedOptionError, match=rf"{longest + 1} samples \(have: 20 to {longest}\).\nCut it"):
        embedder.encode([noise(longest + 1)])


@pytest.mark.parametrize("returns_mask", [False, True])
@pytest.mark.parametrize("normalizes", [False, True])
def test_a_wave_is_that_of_the_library_to_the_last_bit(normalizes: bool, returns_mask: bool) -> None:
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalizes, return_attention_mask=returns_mask)
    module = cases.wave_encoder(Data2VecAudioModel, extractor, **DATA2VEC)[0]
    described = describe_audio(module)
    assert described.entry == "wave"
    for samples in (401, 5_003, 40_000):
        sound = noise(samples).astype(np.float64 if samples == 401 else np.float32)
        theirs = module.preprocess([{"array": sound, "sampling_rate": RATE}])["input_values"].numpy()
        (ours,) = waves([sound], described.section, None)  # type: ignore[arg-type]
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs[0])


@pytest.fixture(scope="session")
def wave_artifact(built_once: Any) -> Path:
    """A tiny model of waves converted; do not write to it."""
    return Path(built_once("waves", lambda folder: sbertconv.to_onnx(cases.CASES["wav2vec2"].build(), folder)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([np.zeros(0, np.float32)], "without samples"),
        ([SOUND, noise(19)], "Input 1: a sound of 19 samples .have: 20 and more"),
        ({"array": SOUND, "sampling_rate": 8000}, "8000 samples per second .have: 16000.*Resample"),
        ([np.array([3e38, 1.0] * 50, np.float32)], "too large"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_wave_of_the_model_is_said(given: Any, said: str, wave_artifact: Path) -> None:
    with pytest.raises(UnsupportedOptionError, match=f"(?s){said}"):
        sbertconv.load(wave_artifact).encode(given)


def test_a_column_of_paths_holds_waves(wave_artifact: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    paths = [str(tmp_path / f"{length}.wav") for length in (900, 333, 900)]
    for seed, path in enumerate(paths):
        Path(path).write_bytes(wav(noise(int(Path(path).stem), seed).clip(-1, 1)))
    rows = EmbedTable(folder=str(wave_artifact), column="sound")(pa.table({"sound": paths})).column("embedding")
    embedder = sbertconv.load(wave_artifact)
    np.testing.assert_allclose(rows.to_pylist(), np.stack([embedder.encode(path) for path in paths]), ATOL, ATOL)


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2-bert"])
def test_sounds_of_any_length_have_no_plan_of_tensorrt(name: str, tmp_path: Path) -> None:
    with pytest.raises(SbertconvError, match=r"largest shape, and the sounds of .* have any length"):
        sbertconv.to_onnx(cases.CASES[name].build(), tmp_path / "model", target="tensorrt")


def test_a_model_that_takes_no_wave_is_refused_in_its_own_words() -> None:
    def fails(features: Any) -> Any:
        raise RuntimeError("a kernel of 10 is larger")

    with pytest.raises(UnsupportedOptionError, match=r"no sound of up to 1,048,576 samples: .*kernel of 10"):
        fewest_taken(fails, lambda samples: {}, "samples", 2**20)


def test_a_graph_of_sounds_has_one_way_to_its_input(wave_artifact: Path, clap_artifact: Path) -> None:
    manifest, other = (read_json(folder / MANIFEST, dict) for folder in (wave_artifact, clap_artifact))
    (sound,) = (graph["sound"] for graph in other["graphs"] if "sound" in graph)
    assert not problems_of(manifest)
    for change in (
        {"sound": sound},
        {"wave": None},
        {"inputs": [{**manifest["graphs"][0]["inputs"][0], "name": "wave"}]},
    ):
        wrong = {**manifest, "graphs": [{**manifest["graphs"][0], **change}]}
        assert any("wave" in problem for problem in problems_of(wrong))


def test_the_card_says_what_sounds_a_model_takes(wave_artifact: Path, clap_artifact: Path) -> None:
    waves, both = ((folder / "README.md").read_text(encoding="utf-8") for folder in (wave_artifact, clap_artifact))
    assert "- sounds of 16,000 samples per second, of 20 samples and more\n" in waves
    assert "texts of" not in waves
    assert 'model.encode(["one.wav", "another.wav"])' in waves
    assert "- texts up to 16 tokens\n- sounds of 16,000 samples per second\n" in both
    assert 'model.encode(["a text", "another"])' in both
