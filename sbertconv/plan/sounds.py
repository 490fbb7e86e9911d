"""What a feature extractor does to a sound before the graph, written down for the run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from sbertconv.artifact.manifest import Fill, SoundSection, problems_of_sound
from sbertconv.errors import UnsupportedOptionError, error_text
from sbertconv.runtime.sounds import mel_filters

CLOSE = 1e-12  # between mel filters, all of them below 1: rounding of float64


def describe_sound(module: Any) -> SoundSection:
    """The settings of the feature extractor of a Transformer module.

    Raises:
        UnsupportedOptionError: for one of another kind, or with settings that no folder can have.
    """
    processor = getattr(module, "processor", None)
    extractor = getattr(processor, "feature_extractor", processor)
    describe = DESCRIBERS.get(type(extractor).__name__)
    if describe is None:
        raise UnsupportedOptionError(
            f"feature extractor {type(extractor).__name__} is not supported (have: {', '.join(DESCRIBERS)})"
        )
    given = getattr(module, "processing_kwargs", None) or {}
    if names := [*given.get("audio", {}), *(name for name in given.get("common", {}) if name != "return_tensors")]:
        raise UnsupportedOptionError(f"processing_kwargs: {', '.join(names)} is not supported for sounds")
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


def _ast(extractor: Any) -> tuple[SoundSection, Any]:
    _refuse(extractor, {"return_attention_mask": (False,)})
    scaled, highest = bool(extractor.do_normalize), float(extractor.sampling_rate // 2)
    kaldi = {"scale": "kaldi", "in_mel": True, "by_area": False}
    section = _section(
        tensors=["input_values"],
        layout=["frames", "filters"],
        sampling_rate=extractor.sampling_rate,
        frame_length=400,
        hop_length=160,
        fft_length=512,
        periodic=False,
        center=False,
        remove_dc=True,
        preemphasis=0.97,
        mel={"filters": extractor.num_mel_bins, "lowest": 20.0, "highest": highest, **kaldi},
        floor=1.192092955078125e-07,
        logarithm="log",
        frames=extractor.max_length,
        mean=float(extractor.mean) if scaled else 0.0,
        divisor=float(extractor.std) * 2 if scaled else 1.0,
    )
    return section, getattr(extractor, "mel_filters", None)  # torchaudio has its own, where it is installed


# Class of a feature extractor -> its settings, and its mel filters where it says them.
DESCRIBERS: dict[str, Callable[[Any], tuple[SoundSection, Any]]] = {
    "WhisperFeatureExtractor": _whisper,
    "ClapFeatureExtractor": _clap,
    "ASTFeatureExtractor": _ast,
}
