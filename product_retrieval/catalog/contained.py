"""Files that a catalogue names, read below a root that no name can leave."""

from __future__ import annotations

import os
from typing import BinaryIO

from product_retrieval.errors import ArtifactError
from product_retrieval.storage import Storage

MAX_IMAGE_BYTES = 32 << 20
"""Larger files are not pictures of products; the bound keeps one row from filling a worker's memory."""


class UnreadableImageError(Exception):
    """A picture cannot be had; the reason becomes the rejection's."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def read_file_below(root: str, path: str) -> bytes:
    """Return the bytes of a file below a root that no path can leave, links included.

    Args:
        root: folder, local or in an object store.
        path: as the catalogue gives it; untrusted.

    Raises:
        UnreadableImageError: it is a URL, leads outside, is missing, too large or no regular file.
    """
    with open_below(root, path, max_bytes=MAX_IMAGE_BYTES) as file:
        try:
            return file.read()
        except OSError as error:
            raise UnreadableImageError("image_not_readable", f"{path[:200]}: {error}") from error


def open_below(root: str, path: str, *, max_bytes: int | None = None) -> BinaryIO:
    """Open a file below a root that no path can leave; see read_file_below."""
    if "://" in path:
        raise UnreadableImageError("image_url_not_allowed", path[:200])
    if path.startswith("/") or ".." in path.replace("\\", "/").split("/") or "\0" in path:
        raise UnreadableImageError("image_outside_root", path[:200])
    storage = Storage.at(root)
    if storage.is_local:
        _check_local(storage, path)
    try:
        if max_bytes is not None and storage.size_bytes(path) > max_bytes:
            raise UnreadableImageError("image_too_large", f"more than {max_bytes} bytes")
        return storage.open(path)
    except FileNotFoundError as error:
        raise UnreadableImageError("image_not_found", path[:200]) from error
    except (OSError, ArtifactError) as error:
        raise UnreadableImageError("image_not_readable", f"{path[:200]}: {error}") from error


def _check_local(storage: Storage, path: str) -> None:
    real, root = os.path.realpath(storage.path(path)), os.path.realpath(storage.uri)
    if not real.startswith(root.rstrip("/") + "/"):
        raise UnreadableImageError("image_outside_root", path[:200])
    if os.path.exists(real) and not os.path.isfile(real):  # opening a FIFO would wait for ever
        raise UnreadableImageError("image_not_readable", f"{path[:200]}: not a regular file")
