"""Sounds to tensors at run time: what transformers' feature extractors of Whisper, CLAP, AST, SeamlessM4T and wav2vec
2.0 do, in numpy.

A spectrogram: cut or fill, frames, Fourier transform, mel filters, logarithm, scaling, in this order, from the settings
that the manifest's `sound` entry holds. The formulas are those of transformers.audio_utils. Its frames may become rows
of any number, and a mask. A wave: the samples themselves, perhaps normalized, as its `wave` entry says.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from sbertconv.artifact.manifest import GraphSection, MelSection, RowSection, SoundSection, WaveSection
from sbertconv.errors import UnsupportedOptionError, error_text
from sbertconv.runtime.media import refuse_address

READ = "WAV files of one channel, arrays of samples"
RIFF = b"RIFF"  # what a WAV file begins with
MOST_SAMPLES = 2**25  # of a file, 128 MiB as float32
SCALES: dict[int, tuple[str, float, float]] = {  # bytes of a WAV file's sample -> its type, its zero, its largest value
    1: ("u1", 128, 2**7),
    2: ("<i2", 0, 2**15),
    4: ("<i4", 0, 2**31),
}
LOGARITHMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log": np.log,
    "log10": np.log10,
    "dB": lambda power: 10.0 * np.log10(power),
}
# Shape of a window -> the power of the Hann window that it is
WINDOWS = {"hann": 1.0, "povey": 0.85}
VARIANCE_OF_SILENCE = 1e-7  # what transformers adds, so that silence is divided by something
BREAK, STEP = 1000.0, 27.0 / np.log(6.4)  # of the slaney scale: linear up to 1,000 Hz, which is 15 mel
# Scale -> hertz to mel, and back
MEL: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "htk": (lambda f: 2595.0 * np.log10(1.0 + f / 700.0), lambda m: 700.0 * (np.power(10, m / 2595.0) - 1.0)),
    "kaldi": (lambda f: 1127.0 * np.log(1.0 + f / 700.0), lambda m: 700.0 * (np.exp(m / 1127.0) - 1.0)),
    "slaney": (
        lambda f: np.where(f < BREAK, 3.0 * f / 200.0, 15.0 + np.log(np.maximum(f, BREAK) / BREAK) * STEP),
        lambda m: np.where(m < 15.0, 200.0 * m / 3.0, BREAK * np.exp((np.maximum(m, 15.0) - 15.0) / STEP)),
    ),
}


def is_sound(value: Any) -> bool:
    """Whether a value is a sound by its type: samples, samples with their rate, or the bytes of a WAV file."""
    if isinstance(value, Mapping):
        return {"array", "sampling_rate"} <= set(value)
    return (isinstance(value, np.ndarray) and value.ndim <= 2) or (isinstance(value, bytes) and value[:4] == RIFF)


def feature_shape(section: SoundSection) -> tuple[int | None, ...]:
    """The sizes of one sound's tensor; None for rows of any number."""
    if "rows" in section:
        return (None, section["rows"]["frames"] * section["mel"]["filters"])
    return _sizes(section)


def _sizes(section: SoundSection) -> tuple[int, ...]:
    sizes = {"frames": frames_of(section), "filters": section["mel"]["filters"], "channel": 1}
    return tuple(sizes[axis] for axis in section["layout"])


def frames_of(section: SoundSection) -> int:
    """How many frames every sound has."""
    if section["frames"] is not None:
        return section["frames"]
    assert section["samples"] is not None  # one of both is set
    length = section["samples"] + (2 * (section["frame_length"] // 2) if section["center"] else 0)
    return 1 + (length - section["frame_length"]) // section["hop_length"] - section["drop_last_frame"]


def sound_tensors(sounds: Sequence[Any], section: GraphSection) -> list[tuple[np.ndarray, ...]]:
    """What a graph takes of each sound: samples, a spectrogram, or rows of one and their mask.

    Args:
        sounds: see `sound_features`.
        section: the manifest's entry of the graph.

    Raises:
        UnsupportedOptionError: see `sound_features`, `waves` and `sound_rows`.
    """
    if "wave" in section:
        return [(wave,) for wave in waves(sounds, section["wave"], section.get("longest"))]
    if "rows" in section["sound"]:
        return [*sound_rows(sounds, section["sound"], section.get("longest"))]
    return [(features,) for features in sound_features(sounds, section["sound"])]


def sound_features(sounds: Sequence[Any], section: SoundSection) -> np.ndarray:
    """Float32 spectrograms [batch, *layout].

    Args:
        sounds: arrays of samples [n] at the model's rate, {"array": samples, "sampling_rate": rate}, paths of WAV
            files, or their bytes.
        section: the manifest's `sound` entry.

    Raises:
        UnsupportedOptionError: for what is no sound of one channel at the model's rate, or a length that it has not.
    """
    rate = section["sampling_rate"]
    return np.stack([_spectrogram(_sized(_samples(sound, rate), section), section) for sound in sounds])


def waves(sounds: Sequence[Any], section: WaveSection, longest: int | None) -> list[np.ndarray]:
    """Float32 samples [n] of each sound, as the graph takes them.

    Args:
        sounds: see `sound_features`.
        section: the manifest's `wave` entry.
        longest: the most samples that the graph is right for, or None.

    Raises:
        UnsupportedOptionError: for what is no sound of one channel at the model's rate, or of another length than the
            graph takes.
    """
    return [_wave(_samples(sound, section["sampling_rate"]), section, longest) for sound in sounds]


def sound_rows(
    sounds: Sequence[Any], section: SoundSection, longest: int | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows of each sound's spectrogram, float32 [n, filters * frames], and their mask, int64 [n]: 1 for full ones.

    Args:
        sounds: see `sound_features`.
        section: the manifest's `sound` entry, with `rows`.
        longest: the most samples that the graph is right for, or None.

    Raises:
        UnsupportedOptionError: for what is no sound of one channel at the model's rate, or of another length than the
            graph takes.
    """
    rows, rate = section["rows"], section["sampling_rate"]
    found = [_fitting(_samples(sound, rate), rows["shortest"], longest) for sound in sounds]
    return [_rows(_log_mel(samples, section), rows) for samples in found]


def _rows(values: np.ndarray, section: RowSection) -> tuple[np.ndarray, np.ndarray]:
    """Frames [n, filters] in rows of so many, and which of these are full."""
    size, missing = section["frames"], -len(values) % section["frames"]
    if section["normalized"]:
        # In the order in memory that the library has: of a sound that hardly changes the sum's rounding is most of it
        values = np.ascontiguousarray(values.T).T
        deviation = np.sqrt(values.var(axis=0, ddof=1, keepdims=True) + VARIANCE_OF_SILENCE)
        values = (values - values.mean(axis=0, keepdims=True)) / deviation
    filled = np.pad(values, ((0, missing), (0, 0)), constant_values=section["filler"])
    mask = np.ones(len(filled) // size, np.int64)
    mask[len(values) // size :] = 0
    return filled.reshape(len(mask), -1), mask


def _wave(samples: np.ndarray, section: WaveSection, longest: int | None) -> np.ndarray:
    samples = _fitting(samples, section["shortest"], longest)
    if not section["normalized"]:
        return samples
    with np.errstate(over="ignore", invalid="ignore"):
        normalized = (samples - samples.mean()) / np.sqrt(samples.var() + VARIANCE_OF_SILENCE)
    return _finite(normalized)


def _fitting(samples: np.ndarray, least: int, longest: int | None) -> np.ndarray:
    """Samples of a length that a graph takes."""
    if len(samples) < least:
        raise UnsupportedOptionError(f"a sound of {len(samples):,} samples (have: {least:,} and more).\nLeave it out.")
    if longest is not None and len(samples) > longest:
        raise UnsupportedOptionError(f"a sound of {len(samples):,} samples (have: {least:,} to {longest:,}).\nCut it.")
    return samples


def _finite(values: np.ndarray) -> np.ndarray:
    """Raise UnsupportedOptionError for numbers that became infinite on the way from samples."""
    if not np.isfinite(values).all():
        raise UnsupportedOptionError("a sound of samples that are too large.\nPass them from -1 to 1.")
    return values


def _samples(sound: Any, rate: int) -> np.ndarray:
    """The samples of a sound that has so many per second, float32 [n]."""
    if isinstance(sound, (str, bytes)):
        sound = opened_sound(sound)
    if isinstance(sound, Mapping):
        given = sound.get("sampling_rate")
        if not isinstance(given, (int, float, np.number)) or given != rate:
            raise UnsupportedOptionError(
                f"a sound of {given!r:.60} samples per second (have: {rate}).\nResample it first."
            )
        sound = sound.get("array")
    if not isinstance(sound, np.ndarray) or sound.ndim != 1 or sound.dtype.kind not in "fiu":
        what = f"{sound.dtype} {list(sound.shape)}" if isinstance(sound, np.ndarray) else type(sound).__name__
        raise UnsupportedOptionError(
            f"{what} is not a sound (have: arrays of samples [n], dicts of array and sampling_rate, WAV files of one "
            "channel).\nPass one of these."
        )
    with np.errstate(over="ignore"):
        sound = sound.astype(np.float32)
    if not len(sound) or not np.isfinite(sound).all():
        raise UnsupportedOptionError("a sound without samples, or with some that are no numbers.\nLeave it out.")
    return np.asarray(sound)


def opened_sound(source: str | bytes) -> dict[str, Any]:
    """The samples [n] of a WAV file, from -1 to 1, and their rate.

    Raises:
        UnsupportedOptionError: for an address, another kind of file, or several channels.
    """
    if isinstance(source, str):
        refuse_address(source, "sound", READ)
    told = f"{source:.200}" if isinstance(source, str) else f"a sound of {len(source):,} bytes"
    try:
        with wave.open(io.BytesIO(source) if isinstance(source, bytes) else source, "rb") as file:
            if file.getnchannels() != 1 or file.getsampwidth() not in SCALES or file.getnframes() > MOST_SAMPLES:
                raise ValueError(
                    f"{file.getnchannels()} channels of {file.getnframes():,} samples of {file.getsampwidth()} bytes "
                    f"(have: 1 channel, up to {MOST_SAMPLES:,} samples, {', '.join(map(str, SCALES))} bytes)"
                )
            kind, zero, largest = SCALES[file.getsampwidth()]
            samples = np.frombuffer(file.readframes(file.getnframes()), kind)
            if len(samples) != file.getnframes():
                raise ValueError(f"{len(samples):,} samples, and its header says {file.getnframes():,}")
            return {
                "array": ((samples - np.float64(zero)) / largest).astype(np.float32),
                "sampling_rate": file.getframerate(),
            }
    except (OSError, EOFError, RuntimeError, ValueError, wave.Error) as error:
        raise UnsupportedOptionError(
            f"{told}: cannot be read as a WAV file: {error_text(error)} (have: {READ}).\n"
            "Decode it and pass its samples, or convert it to one."
        ) from error


def _sized(samples: np.ndarray, section: SoundSection) -> np.ndarray:
    """Samples in the length that the settings say."""
    size = section["samples"]
    if size is None:
        return samples
    if len(samples) > size:
        if section["longer"] == "refuse":
            seconds = size / section["sampling_rate"]
            raise UnsupportedOptionError(
                f"a sound of {len(samples):,} samples (have: up to {size:,}, {seconds:g} s): the library takes a part "
                "of it at random.\nCut it."
            )
        return samples[:size]
    if section["fill"] == "repeat":
        return np.resize(samples, size)
    if section["fill"] == "repeat and zeros":
        samples = np.tile(samples, size // len(samples))
    return np.pad(samples, (0, size - len(samples)))


def _spectrogram(samples: np.ndarray, section: SoundSection) -> np.ndarray:
    values = _log_mel(samples, section)
    if section["drop_last_frame"]:
        values = values[:-1]
    if section["range"] is not None:
        values = np.maximum(values, values.max() - np.float32(section["range"]))
    if section["frames"] is not None:
        values = np.pad(values, ((0, section["frames"] - len(values)), (0, 0)))
    values = (values - np.float32(section["mean"])) / np.float32(section["divisor"])
    return np.asarray(values if section["layout"][-1] == "filters" else values.T).reshape(_sizes(section))


def _log_mel(samples: np.ndarray, section: SoundSection) -> np.ndarray:
    """The logarithms of a sound's filtered powers, float32 [frames, filters]."""
    length, hop = section["frame_length"], section["hop_length"]
    if section["center"]:
        samples = np.pad(samples, length // 2, mode="reflect")
    least = length + hop * section["drop_last_frame"]
    if len(samples) < least:
        raise UnsupportedOptionError(f"a sound of {len(samples)} samples (have: {least} and more).\nLeave it out.")
    most = section["frames"] and length + hop * (section["frames"] - 1)  # what lies behind is cut
    samples = samples[:most].astype(np.float64) * section.get("scale", 1)
    frames = np.lib.stride_tricks.sliding_window_view(samples, length)[::hop].copy()
    if section["remove_dc"]:
        frames -= frames.mean(axis=1, keepdims=True)
    if section["preemphasis"]:
        frames[:, 1:] -= section["preemphasis"] * frames[:, :-1]
        frames[:, 0] *= 1 - section["preemphasis"]
    window = np.hanning(length + 1)[:-1] if section["periodic"] else np.hanning(length)
    window **= WINDOWS[section.get("window", "hann")]
    with np.errstate(over="ignore"):
        spectrum = np.fft.rfft(frames * window, section["fft_length"]).astype(np.complex64)
    power = np.abs(_finite(spectrum), dtype=np.float64) ** 2
    mel = np.maximum(section["floor"], power @ mel_filters(section))
    return np.asarray(LOGARITHMS[section["logarithm"]](mel).astype(np.float32))


def mel_filters(section: SoundSection) -> np.ndarray:
    """The mel filters, float64 [fft_length / 2 + 1, filters]."""
    return _mel_filters(section["fft_length"], section["sampling_rate"], tuple(section["mel"].items()))


@cache
def _mel_filters(fft_length: int, rate: int, settings: tuple[tuple[str, Any], ...]) -> np.ndarray:
    """Triangles between neighbours of points that lie evenly on the mel scale (`mel_filter_bank`)."""
    mel = MelSection(**dict(settings))  # type: ignore[typeddict-item]
    to_mel, to_hertz = MEL[mel["scale"]]
    low, high = to_mel(np.array([mel["lowest"], mel["highest"]], np.float64))
    points, bins = np.linspace(low, high, mel["filters"] + 2), fft_length // 2 + 1
    if mel["in_mel"]:
        places = to_mel(rate / ((bins - 1) * 2) * np.arange(bins))
    else:
        points, places = to_hertz(points), np.linspace(0, rate // 2, bins)
    widths, slopes = np.diff(points), points[None] - places[:, None]
    filters = np.maximum(0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))
    return np.asarray(filters * (2.0 / (points[2:] - points[:-2])) if mel["by_area"] else filters)
