"""Images to pixel values at run time: what transformers' image processors of the CLIP and ViT kind do.

Resize, center crop, rescale, normalize, in this order, with Pillow and numpy, from the settings that the
model's own preprocessor saved. A file is opened as the library opens it: turned as its EXIF says, in RGB.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sbertconv.artifact.graph_inputs import GRIDDED, PATCHED, PIXELS
from sbertconv.artifact.manifest import CHANNELS, LARGEST_EDGE, GridSection, ImageSection, PatchSection, not_null
from sbertconv.errors import UnsupportedOptionError, error_text, require
from sbertconv.runtime.media import INLINE, refuse_address

SETTINGS = ("do_convert_rgb", "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale",
            "rescale_factor", "do_normalize", "image_mean", "image_std")  # fmt: skip
PLAIN = ("RGB", "L", "P")  # modes that are resized as they are
LONGEST_SHAPE = 200  # times as long as it is wide, or the other way round
SCALES, PRECISION = (1e-6, 100.0), 1e-5  # what is tried to fit an image into so many patches
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")  # Pillow runs another program for some of the others
MOST_PIXELS = 2**27  # of a file, 512 MiB in Pillow
COUNTS_OF_CHANNELS = (1, 3)  # which the library takes for them where an array begins with one, however it ends


def image_tensors(images: Sequence[Any], section: ImageSection) -> dict[str, np.ndarray]:
    """The tensors that a graph of images takes: pixel values alone, see `pixel_values`, or of images in patches
    pixel_values, float32 [batch, patches, size * size * 3], pixel_attention_mask, int64 [batch, patches], 0 behind the
    last patch of an image, and spatial_shapes, int64 [batch, 2], how many patches lie below and beside one another. Of
    one image as any number of tokens they are patch_groups, float32 [tokens, merge * merge, numbers], and
    image_grid_thw, int64 [1, 3], its frames, rows and columns of patches.
    """
    if "grid" in section:
        (image,) = images
        return dict(zip(GRIDDED, _in_groups(_prepare(image, section), section["grid"]), strict=True))
    if "patches" not in section:
        return {PIXELS: pixel_values(images, section)}
    patched = [_in_patches(_prepare(image, section), section["patches"]) for image in images]
    return {name: np.stack(rows) for name, rows in zip(PATCHED, zip(*patched, strict=True), strict=True)}


def _in_patches(values: np.ndarray, patches: PatchSection) -> tuple[np.ndarray, ...]:
    """The patches of an image row by row, filled up with zeros; which of them are some; how many lie in each way."""
    edge, most = patches["size"], patches["most"]
    channels, height, width = values.shape
    grid = (height // edge, width // edge)
    if (grid[0] * edge, grid[1] * edge) != (height, width) or not 0 < grid[0] * grid[1] <= most:
        raise UnsupportedOptionError(
            f"an image of {width} x {height} pixels (have: up to {most} patches of {edge} x {edge}).\n"
            "Resize it to such a number of patches."
        )
    if grid[0] > 1 == grid[1]:
        raise UnsupportedOptionError(
            f"an image of {width} x {height} pixels, one patch wide and {grid[0]} high: PyTorch mixes up the numbers "
            "of places that it resizes to such a grid, so that the library's answer has no meaning.\n"
            "Cut it to another shape."
        )
    cut = values.reshape(channels, grid[0], edge, grid[1], edge).transpose(1, 3, 2, 4, 0)
    count = grid[0] * grid[1]
    filled = np.zeros((most, channels * edge * edge), np.float32)
    filled[:count] = cut.reshape(count, -1)
    return filled, (np.arange(most) < count).astype(np.int64), np.array(grid, np.int64)


def _in_groups(values: np.ndarray, grid: GridSection) -> tuple[np.ndarray, np.ndarray]:
    """The patches of an image, those that become a token together behind one another, and how many lie in each way."""
    edge, merge, frames = grid["size"], grid["merge"], grid["frames"]
    channels, height, width = values.shape
    rows, columns = height // (edge * merge), width // (edge * merge)
    if (rows * edge * merge, columns * edge * merge) != (height, width) or not rows * columns:
        raise UnsupportedOptionError(
            f"an image of {width} x {height} pixels (have: multiples of {edge * merge}).\nResize it to such a size."
        )
    cut = values.reshape(channels, rows, merge, edge, columns, merge, edge).transpose(1, 4, 2, 5, 0, 3, 6)
    filmed = np.repeat(cut[:, :, :, :, :, None], frames, axis=5)
    groups = filmed.reshape(rows * columns, merge * merge, channels * frames * edge * edge)
    return np.ascontiguousarray(groups), np.array([[1, rows * merge, columns * merge]], np.int64)


def _gridded_size(size: tuple[int, int], grid: GridSection) -> tuple[int, int]:
    """Pillow's (width, height) of whole groups of patches, between the fewest and the most pixels.

    Raises:
        UnsupportedOptionError: for an image that the library refuses for its shape.
    """
    step, area = grid["size"] * grid["merge"], math.prod(size)
    if max(size) > LONGEST_SHAPE * min(size):
        raise UnsupportedOptionError(
            f"an image of {size[0]} x {size[1]} pixels (have: up to {LONGEST_SHAPE} times as long as wide).\n"
            "Cut it to another shape."
        )
    width, height = (round(length / step) * step for length in size)
    if width * height > grid["most"]:
        scale = math.sqrt(area / grid["most"])
        width, height = (max(step, math.floor(length / scale / step) * step) for length in size)
    elif width * height < grid["least"]:
        scale = math.sqrt(grid["least"] / area)
        width, height = (math.ceil(length * scale / step) * step for length in size)
    return width, height


def _fitting_size(size: tuple[int, int], patches: PatchSection) -> tuple[int, int]:
    """Pillow's (width, height) of whole patches, as many as there may be, at the nearest to the image's own shape. The
    scale is searched as the library does, to the same precision.
    """
    low, high = SCALES
    edge = patches["size"]

    def counts(scale: float) -> tuple[int, int]:
        width, height = (max(math.ceil(length * scale / edge), 1) for length in size)
        return width, height

    while high - low >= PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if math.prod(counts(middle)) <= patches["most"] else (low, middle)
    columns, rows = counts(low)
    return columns * edge, rows * edge


def pixel_values(images: Sequence[Any], section: ImageSection) -> np.ndarray:
    """Float32 pixel values [batch, 3, height, width].

    Args:
        images: Pillow images, uint8 arrays [height, width, 3], paths, data URIs, or the bytes of a file.
        section: the manifest's `image` entry.

    Raises:
        UnsupportedOptionError: for what is no image or cannot be read to its end, and where the settings leave images
            of several sizes.
    """
    prepared = [_prepare(image, section) for image in images]
    if len(sizes := {values.shape for values in prepared}) > 1:
        told = ", ".join(f"{height} x {width}" for _, height, width in sorted(sizes))
        raise UnsupportedOptionError(
            f"the image processor's settings leave images of several sizes ({told}), and a batch has one.\n"
            "Pass images of one size."
        )
    return np.stack(prepared).astype(np.float32)


def opened_image(source: str | bytes) -> Any:
    """The Pillow image of a path, of a data URI or of the bytes of a file, in RGB.

    Raises:
        UnsupportedOptionError: for an address, since nothing here contacts a server, and for what is no complete image.
    """
    require("image", "PIL")
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(source, str):
        refuse_address(source, "image", "files")
    told = f"{source:.200}" if isinstance(source, str) else f"an image of {len(source):,} bytes"
    try:
        if isinstance(source, str) and source.startswith(INLINE):
            source = base64.b64decode(source.partition(",")[2], validate=True)
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            if image.size[0] * image.size[1] > MOST_PIXELS:
                raise ValueError(f"{image.size[0]} x {image.size[1]} pixels (have: up to {MOST_PIXELS:,})")
            ImageOps.exif_transpose(image, in_place=True)
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")  # which copies
    except UnsupportedOptionError:
        raise
    except Exception as error:  # of many kinds, for each format has its own reader
        kinds = ", ".join(FORMATS)
        reason = "its first bytes are of none" if isinstance(error, UnidentifiedImageError) else error_text(error)
        raise UnsupportedOptionError(
            f"{told}: cannot be read as an image: {reason} (have: {kinds}).\nGet a complete copy of it."
        ) from error


def _prepare(image: Any, section: ImageSection) -> np.ndarray:
    require("image", "PIL")
    from PIL import Image

    if isinstance(image, (str, bytes)):
        image = opened_image(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        if image.shape[0] in COUNTS_OF_CHANNELS:
            raise UnsupportedOptionError(
                f"uint8 {list(image.shape)}: an image of {image.shape[0]} rows, which the library takes for channels.\n"
                "Pass a Pillow image."
            )
        image = Image.fromarray(image) if image.size else Image.new("RGB", (0, 0))
    if not isinstance(image, Image.Image):
        what = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UnsupportedOptionError(
            f"{what} is not an image (have: Pillow images, uint8 arrays [height, width, 3], paths, bytes of files).\n"
            "Pass one of these."
        )
    try:
        pixels = _resized(image, section)
    except UnsupportedOptionError:
        raise
    except Exception as error:  # of many kinds, for the file behind an image is read here
        raise UnsupportedOptionError(
            f"an image of {image.size[0]} x {image.size[1]} pixels, mode {image.mode}, cannot be used: "
            f"{error_text(error)}\nGet a complete copy of it."
        ) from error
    if section["do_center_crop"]:
        pixels = _center_crop(pixels, not_null(section["crop_size"]))
    values = pixels.astype(np.float32)
    if section["do_rescale"]:  # in float64, as the library does
        values = (pixels.astype(np.float64) * not_null(section["rescale_factor"])).astype(np.float32)
    if section["do_normalize"]:
        mean, std = (np.asarray(section[name], np.float32) for name in ("image_mean", "image_std"))
        values = (values - mean) / std
    return values.transpose(2, 0, 1)


def _resized(image: Any, section: ImageSection) -> np.ndarray:
    """The pixels of an image in the size that the settings say, [height, width, 3]."""
    from PIL import Image

    if not all(image.size):
        raise UnsupportedOptionError("an image without pixels.\nLeave it out.")
    if section["do_convert_rgb"]:
        image = _in_rgb(image)
    if section["do_resize"]:
        if "patches" in section:
            target = _fitting_size(image.size, section["patches"])
        elif "grid" in section:
            target = _gridded_size(image.size, section["grid"])
        else:
            target = _target_size(image.size, not_null(section["size"]))
        if target[0] * target[1] > LARGEST_EDGE**2:
            raise UnsupportedOptionError(
                f"an image of {image.size[0]} x {image.size[1]} pixels would become one of {target[0]:,} x "
                f"{target[1]:,} (have: up to {LARGEST_EDGE**2:,} pixels).\nCut it to another shape."
            )
        _check_tokens(target, section)
        if image.mode not in PLAIN and len(image.getbands()) == CHANNELS:  # to the library three numbers, whatever of
            image = Image.fromarray(np.asarray(image), "RGB")
        image = image.resize(target, resample=section["resample"])
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != CHANNELS:
        raise UnsupportedOptionError(
            f"an image of mode {image.mode} (have: RGB, since the model's settings do not convert others).\n"
            'Pass image.convert("RGB").'
        )
    return pixels


def _check_tokens(size: tuple[int, int], section: ImageSection) -> None:
    """Raise UnsupportedOptionError for an image of a (width, height) that becomes more tokens than the model takes:
    the library cuts their row in silence.
    """
    grid = section.get("grid")
    if grid is None or grid["longest"] is None:
        return
    groups = size[0] * size[1] // (grid["size"] * grid["merge"]) ** 2
    tokens = groups + max(map(len, section.get("tokens", {}).values()), default=1) - 1
    if tokens > grid["longest"]:
        raise UnsupportedOptionError(
            f"an image that becomes {tokens:,} tokens (have: up to {grid['longest']:,}).\nMake it smaller."
        )


def _in_rgb(image: Any) -> Any:
    """An image in RGB, a transparent one on white (`convert_to_rgb` of transformers.image_transforms)."""
    from PIL import Image

    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _target_size(size: tuple[int, int], wanted: Mapping[str, int]) -> tuple[int, int]:
    """Pillow's (width, height) for a shortest edge or a fixed height and width."""
    if "shortest_edge" not in wanted:
        return wanted["width"], wanted["height"]
    width, height = size
    short, edge = min(width, height), wanted["shortest_edge"]
    long = int(edge * max(width, height) / short)
    return (edge, long) if width <= height else (long, edge)


def _center_crop(pixels: np.ndarray, size: Mapping[str, int]) -> np.ndarray:
    """Cut from the middle; where the image is smaller, zeros around it."""
    height, width = size["height"], size["width"]
    pad_y, pad_x = max(height - pixels.shape[0], 0), max(width - pixels.shape[1], 0)
    if pad_y or pad_x:
        around = ((-(-pad_y // 2), pad_y // 2), (-(-pad_x // 2), pad_x // 2), (0, 0))
        pixels = np.pad(pixels, around)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
