"""What a feature extractor does to a sound before the graph, written down for the run time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch

from sbertconv.artifact.manifest import Fill, SoundSection, WaveSection, problems_of_sound, problems_of_wave
from sbertconv.errors import UnsupportedOptionError, error_text
from sbertconv.plan.preprocessing import InputDescription
from sbertconv.runtime.sounds import mel_filters

MOST_SAMPLES, MOST_ROWS = 2**20, 2**10  # that a model must make a frame of
CLOSE = 1e-12  # between mel filters, all of them below 1: rounding of float64


def describe_audio(module: Any) -> InputDescription:
    """The input of a Transformer module that takes sounds, as spectrograms, as rows of one, or as waves.

    Raises:
        UnsupportedOptionError: for a feature extractor of another kind, or with settings that no folder can have.
    """
    extractor = _extractor(module)
    if type(extractor).__name__ in WAVES:
        return InputDescription({**_describe_wave(module, extractor)}, {}, "wave")
    section = describe_sound(module)
    if "rows" in section:
        first, step = samples_of_rows(section)

        def made(rows: int) -> dict[str, torch.Tensor]:
            features, mask = section["tensors"]
            width = section["mel"]["filters"] * section["rows"]["frames"]
            return {features: torch.rand(1, rows, width), mask: torch.ones(1, rows, dtype=torch.int64)}

        fewest = fewest_taken(module, made, "rows", MOST_ROWS)
        section["rows"] = {**section["rows"], "shortest": first + step * (fewest - 1)}
    return InputDescription({**section}, {}, "sound")


def _extractor(module: Any) -> Any:
    """The feature extractor of a module.

    Raises:
        UnsupportedOptionError: where the module calls it with keywords of its own.
    """
    processor = getattr(module, "processor", None)
    given = getattr(module, "processing_kwargs", None) or {}
    if names := [*given.get("audio", {}), *(name for name in given.get("common", {}) if name != "return_tensors")]:
        raise UnsupportedOptionError(f"processing_kwargs: {', '.join(names)} is not supported for sounds")
    return getattr(processor, "feature_extractor", processor)


def _describe_wave(module: Any, extractor: Any) -> WaveSection:
    """The settings of a feature extractor that gives the samples, and the fewest of them that the model takes."""
    _refuse(extractor, {"feature_size": (1,)})
    section = WaveSection(
        tensors=["input_values"],
        sampling_rate=extractor.sampling_rate,
        normalized=bool(extractor.do_normalize),
        shortest=1,
    )
    if problems := problems_of_wave(section):
        raise UnsupportedOptionError(f"feature extractor {type(extractor).__name__}: {'; '.join(problems)}")
    (name,) = section["tensors"]
    fewest = fewest_taken(module, lambda samples: {name: torch.linspace(-1, 1, samples)[None]}, "samples", MOST_SAMPLES)
    return {**section, "shortest": fewest}


def fewest_taken(module: Any, made: Callable[[int], dict[str, torch.Tensor]], unit: str, limit: int) -> int:
    """The fewest samples or rows of which a model makes a frame, as the model itself says.

    Args:
        module: of sentence-transformers.
        made: gives the tensors of a sound of so many.
        unit: what they are called.
        limit: how many it must take.

    Raises:
        UnsupportedOptionError: if it takes no sound at all.
    """
    error = ""

    def takes(count: int) -> bool:
        nonlocal error
        try:
            found = module({**made(count), "modality": "audio"})
        except Exception as caught:  # whatever a model says of a sound that is too short
            error = error_text(caught)
            return False
        return all(value.numel() for value in found.values() if torch.is_tensor(value))

    with torch.no_grad():
        most = next((2**power for power in range(limit.bit_length()) if takes(2**power)), None)
        if most is None:
            raise UnsupportedOptionError(f"it takes no sound of up to {limit:,} {unit}: {error}")
        return bisect_left(range(most), True, lo=most // 2 + 1, key=takes)


def describe_sound(module: Any) -> SoundSection:
    """The settings of the feature extractor of a Transformer module that makes spectrograms.

    Raises:
        UnsupportedOptionError: for one of another kind, or with settings that no folder can have.
    """
    extractor = _extractor(module)
    describe = DESCRIBERS.get(type(extractor).__name__)
    if describe is None:
        raise UnsupportedOptionError(
            f"feature extractor {type(extractor).__name__} is not supported (have: {', '.join([*DESCRIBERS, *WAVES])})"
        )
    try:
        section, filters = describe(extractor)
        if problems := problems_of_sound(section):
            raise UnsupportedOptionError(f"feature extractor {type(extractor).__name__}: {'; '.join(problems)}")
        others = filters is not None and not np.allclose(filters, mel_filters(section), rtol=0, atol=CLOSE)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnsupportedOptionError(
            f"feature extractor {type(extractor).__name__}: cannot be described: {error_text(error)}"
        ) from error
    if others:
        raise UnsupportedOptionError(f"feature extractor {type(extractor).__name__} has mel filters of its own")
    return section


def samples_of_rows(section: Mapping[str, Any]) -> tuple[int, int]:
    """The samples of a sound of one full row, and of each further one; of any other input of a graph, one each."""
    if "rows" not in section:
        return 1, 1
    frames, hop = section["rows"]["frames"], section["hop_length"]
    return section["frame_length"] + hop * (frames - 1), hop * frames


def _refuse(extractor: Any, allowed: Mapping[str, Any]) -> None:
    """Raise UnsupportedOptionError naming the settings of an extractor that are others than these."""
    given = {name: getattr(extractor, name) for name in allowed}
    if others := [f"{name}={value!r}" for name, value in given.items() if value not in allowed[name]]:
        raise UnsupportedOptionError(f"feature extractor {type(extractor).__name__} with {', '.join(others)}")


# A spectrogram under a centered window, as most extractors make it; what they have otherwise stands with them
SECTION: dict[str, Any] = {
    "tensors": ["input_features"],
    "samples": None,
    "fill": "zeros",
    "longer": "cut",
    "periodic": True,
    "center": True,
    "remove_dc": False,
    "preemphasis": 0.0,
    "floor": 1e-10,
    "drop_last_frame": False,
    "frames": None,
    "range": None,
    "mean": 0.0,
    "divisor": 1.0,
}
SLANEY = {"scale": "slaney", "in_mel": False, "by_area": True}


def _section(**entries: Any) -> SoundSection:
    return cast("SoundSection", SECTION | entries)


def _whisper(extractor: Any) -> tuple[SoundSection, Any]:
    _refuse(extractor, {"dither": (0.0,), "return_attention_mask": (False,), "padding_value": (0.0,)})
    section = _section(
        layout=["filters", "frames"],
        sampling_rate=extractor.sampling_rate,
        samples=extractor.n_samples,
        frame_length=extractor.n_fft,
        hop_length=extractor.hop_length,
        fft_length=extractor.n_fft,
        mel={"filters": extractor.feature_size, "lowest": 0.0, "highest": 8000.0, **SLANEY},
        logarithm="log10",
        drop_last_frame=True,
        range=8.0,
        mean=-4.0,
        divisor=4.0,
    )
    return section, extractor.mel_filters


FILLS: dict[str, Fill] = {"repeatpad": "repeat and zeros", "repeat": "repeat", "pad": "zeros"}  # CLAP's names


def _clap(extractor: Any) -> tuple[SoundSection, Any]:
    # "fusion" marks one sound of a batch at random as a long one
    _refuse(extractor, {"truncation": ("rand_trunc",), "padding": tuple(FILLS), "top_db": (None,)})
    lowest, highest = float(extractor.frequency_min), float(extractor.frequency_max)
    section = _section(
        layout=["channel", "frames", "filters"],
        sampling_rate=extractor.sampling_rate,
        samples=int(extractor.nb_max_samples),
        fill=FILLS[extractor.padding],
        longer="refuse",
        frame_length=extractor.fft_window_size,
        hop_length=extractor.hop_length,
        fft_length=extractor.fft_window_size,
        mel={"filters": extractor.feature_size, "lowest": lowest, "highest": highest, **SLANEY},
        logarithm="dB",
    )
    return section, extractor.mel_filters_slaney


def _kaldi(extractor: Any, **entries: Any) -> SoundSection:
    """A spectrogram as Kaldi makes it: frames without their mean, filters that are straight in mel."""
    filters = {"filters": extractor.num_mel_bins, "lowest": 20.0, "highest": float(extractor.sampling_rate // 2)}
    return _section(
        layout=["frames", "filters"],
        sampling_rate=extractor.sampling_rate,
        frame_length=400,
        hop_length=160,
        fft_length=512,
        periodic=False,
        center=False,
        remove_dc=True,
        preemphasis=0.97,
        mel={**filters, "scale": "kaldi", "in_mel": True, "by_area": False},
        floor=1.192092955078125e-07,
        logarithm="log",
        **entries,
    )


def _ast(extractor: Any) -> tuple[SoundSection, Any]:
    _refuse(extractor, {"return_attention_mask": (False,)})
    scaled = bool(extractor.do_normalize)
    section = _kaldi(
        extractor,
        tensors=["input_values"],
        frames=extractor.max_length,
        mean=float(extractor.mean) if scaled else 0.0,
        divisor=float(extractor.std) * 2 if scaled else 1.0,
    )
    return section, getattr(extractor, "mel_filters", None)  # torchaudio has its own, where it is installed


def _seamless(extractor: Any) -> tuple[SoundSection, Any]:
    # It pads to an even number of frames and has the mask of every second one, whatever its stride is
    allowed = {"stride": (2,), "return_attention_mask": (True,), "padding_side": ("right",)}
    _refuse(extractor, {**allowed, "feature_size": (extractor.num_mel_bins,)})
    rows = {"frames": extractor.stride, "filler": float(extractor.padding_value), "normalized": True}
    tensors = ["input_features", "attention_mask"]
    section = _kaldi(extractor, tensors=tensors, scale=2.0**15, window="povey", rows={**rows, "shortest": 1})
    section["rows"]["shortest"], _ = samples_of_rows(section)
    return section, extractor.mel_filters


# Class of a feature extractor -> its settings, and its mel filters where it says them.
DESCRIBERS: dict[str, Callable[[Any], tuple[SoundSection, Any]]] = {
    "WhisperFeatureExtractor": _whisper,
    "ClapFeatureExtractor": _clap,
    "ASTFeatureExtractor": _ast,
    "SeamlessM4TFeatureExtractor": _seamless,
}
WAVES = ("Wav2Vec2FeatureExtractor",)  # what gives the samples themselves
