"""The names of images, videos and sounds: which strings the library takes for one, and no text
(`sentence_transformers.base.modality`). What is named and cannot be opened here is refused by who opens it.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from urllib.parse import urlparse

from sbertconv.errors import UnsupportedOptionError

# Modality -> how its files and addresses end, in the order in which the library asks
ENDINGS = {
    "image": (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tiff", ".webp"),
    "video": (".mp4", ".avi", ".mov", ".wmv", ".flv", ".mkv"),
    "audio": (".mp3", ".wav", ".ogg", ".flac", ".aac"),
}
HOSTS = {"video": ("www.youtube.com", "youtube.com", "youtu.be", "m.youtube.com")}  # of which every address is one
ADDRESSES, INLINE = ("http://", "https://"), "data:image/"


def names_medium(text: str, modality: str) -> bool:
    """Whether the library takes a string for an image, a video or a sound: the path of a file that is there, an
    address, or a data URI of an image.
    """
    if modality == "image" and text.startswith(INLINE):
        return True
    if not text.startswith(ADDRESSES) or " " in text:
        return text.lower().endswith(ENDINGS[modality]) and os.path.isfile(text)
    try:
        parts = urlparse(text)
    except ValueError:
        return False
    return parts.path.lower().endswith(ENDINGS[modality]) or parts.netloc in HOSTS.get(modality, ())


def named_medium(text: str, known: Collection[str]) -> str | None:
    """Which of the known modalities a string names, if any: it is the first of all that counts, as in the library."""
    first = next((modality for modality in ENDINGS if names_medium(text, modality)), None)
    return first if first in known else None


def refuse_address(source: str, what: str, have: str) -> None:
    """Raise UnsupportedOptionError for an address: nothing here contacts a server."""
    if source.startswith(ADDRESSES):
        raise UnsupportedOptionError(f"{source.strip():.200}: an address (have: {have}).\nDownload the {what} first.")
