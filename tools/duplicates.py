"""Find pictures that show one drawing or photo twice, whatever their size, margin, compression or plain background.

A picture is cut to its foreground and put on white first, so that an empty margin says nothing. Two numbers decide:
the Hamming distance of a 128-bit difference hash proposes pairs, and the share of differing ink confirms them.
N is the number of pictures.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_HAMMING_BITS = 20
"""Of 128. Chosen by looking at pairs, see `demo/README.md`."""
DRAWING_TOLERANCE = 0.15
"""Share of ink in which a drawing may differ from its twin. Chosen by looking at pairs, see `demo/README.md`."""
RENDER_TOLERANCE = 0.05
"""The same for rendered pictures: boxes of one colour under one light look alike without being one product."""
CANDIDATES_AT_ONCE = 50_000
THUMBNAIL_PX = 16
HASH_PX = 8
LEAST_STEP = 6
"""Grey levels by which neighbours must differ to set a bit: compression noise on a plain surface sets none."""
BACKGROUND_TOLERANCE = 20
"""Largest channel difference at which a pixel still counts as background."""
WHITE = 255
ROWS_PER_SEARCH = 4_096


@dataclass(frozen=True, slots=True)
class Signatures:
    """Fingerprints of N pictures: `codes` uint8 [N, 16], `thumbnails` uint8 [N, 16, 16, 3], `blank` bool [N]."""

    codes: NDArray[np.uint8]
    thumbnails: NDArray[np.uint8]
    blank: NDArray[np.bool_]


def signatures(images: Iterable[bytes]) -> Signatures:
    """Fingerprint encoded pictures.

    Args:
        images: N encoded pictures of any size that Pillow opens.

    Returns:
        One fingerprint per picture, in the same order; a picture without any foreground is marked blank.
    """
    codes, thumbnails, blank = [], [], []
    for image in images:
        foreground = cut_to_foreground(Image.open(io.BytesIO(image)).convert("RGB"))
        blank.append(foreground is None)
        square = foreground or Image.new("RGB", (THUMBNAIL_PX, THUMBNAIL_PX), "white")
        codes.append(difference_hash(square))
        thumbnails.append(np.asarray(square.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)))
    return Signatures(
        codes=np.array(codes, dtype=np.uint8).reshape(-1, HASH_PX * HASH_PX * 2 // 8),
        thumbnails=np.array(thumbnails, dtype=np.uint8).reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX, 3),
        blank=np.array(blank, dtype=np.bool_),
    )


def cut_to_foreground(picture: Image.Image) -> Image.Image | None:
    """Cut a picture to what differs from its plain background, put that on a white square; None if nothing does.

    A picture whose corners differ has no plain background and is taken whole.
    """
    pixels = np.array(picture, dtype=np.int16)
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    if np.ptp(corners, axis=0).max() > BACKGROUND_TOLERANCE:
        return on_white_square(pixels)
    distance = np.abs(pixels - np.median(corners, axis=0).astype(np.int16))
    red, green, blue = (distance[:, :, channel] for channel in range(3))
    is_foreground = np.maximum(np.maximum(red, green), blue) > BACKGROUND_TOLERANCE
    rows, columns = np.flatnonzero(is_foreground.any(axis=1)), np.flatnonzero(is_foreground.any(axis=0))
    if rows.size == 0:
        return None
    pixels[~is_foreground] = WHITE
    return on_white_square(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def on_white_square(pixels: NDArray[np.integer]) -> Image.Image:
    """Centre pixels [H, W, 3] on the smallest white square that holds them."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), WHITE, dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return Image.fromarray(square)


def difference_hash(square: Image.Image) -> NDArray[np.uint8]:
    """Say for 8 by 8 places whether the picture gets darker to the right and whether it gets darker downwards.

    Args:
        square: an RGB picture.

    Returns:
        uint8 [16], 64 bits for each direction.

    Source: N. Krawetz, "Kind of Like That", 2013 (dHash); the least step is this project's addition.
    """
    grey = square.convert("L")
    wide = np.asarray(grey.resize((HASH_PX + 1, HASH_PX), Image.Resampling.BOX), dtype=np.int16)
    tall = np.asarray(grey.resize((HASH_PX, HASH_PX + 1), Image.Resampling.BOX), dtype=np.int16)
    darker_right = wide[:, :-1] - wide[:, 1:] >= LEAST_STEP
    darker_down = tall[:-1] - tall[1:] >= LEAST_STEP
    return np.packbits(np.concatenate([darker_right.ravel(), darker_down.ravel()]))


def ink_difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share of ink by which pictures differ.

    Not a share of pixels: thin lines on white would be equal only because both are mostly white.

    Args:
        first: thumbnails uint8 [P, 16, 16, 3].
        second: thumbnails of the same shape.

    Returns:
        float32 [P]: sum of absolute differences over the mean sum of darkness; 0 for equal, 1 to 2 for unlike.
    """
    left, right = (thumbnails.reshape(len(first), -1).astype(np.float32) for thumbnails in (first, second))
    ink = (WHITE - left).sum(axis=1) + (WHITE - right).sum(axis=1)
    difference: NDArray[np.float32] = np.abs(left - right).sum(axis=1) / np.maximum(ink / 2.0, 1.0)
    return difference


def duplicate_pairs(
    pictures: Signatures, *, tolerances: NDArray[np.float32], groups: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Find all pairs of pictures that are twins.

    Args:
        pictures: N fingerprints.
        tolerances: float32 [N], the share of ink in which each picture may differ; the stricter of a pair counts.
        groups: int64 [N]; pairs within a group are known already and are not looked at.

    Returns:
        int64 [P, 2] row numbers, smaller first, in ascending order; blank pictures have no twin.
    """
    groups = np.arange(len(tolerances)) if groups is None else groups
    found = [np.empty((0, 2), dtype=np.int64)]
    for near in candidate_pairs(pictures):
        across = near[groups[near[:, 0]] != groups[near[:, 1]]]
        found.append(confirmed(pictures, across, tolerances[across].min(axis=1)))
    return np.concatenate(found)


def candidate_pairs(pictures: Signatures) -> Iterator[NDArray[np.int64]]:
    """Yield the pairs (i, j), i < j, whose hashes are near, a block of i at a time."""
    rows = np.flatnonzero(~pictures.blank)
    codes = np.ascontiguousarray(pictures.codes[rows])
    index = faiss.IndexBinaryFlat(pictures.codes.shape[1] * 8)
    index.add(codes)
    for start in range(0, len(codes), ROWS_PER_SEARCH):
        limits, _, found = index.range_search(codes[start : start + ROWS_PER_SEARCH], MAX_HAMMING_BITS + 1)
        asked = np.repeat(np.arange(start, start + len(limits) - 1), np.diff(limits.astype(np.int64)))
        pairs = np.stack([asked, found], axis=1)[asked < found]
        yield rows[pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]]


def confirmed(
    pictures: Signatures, candidates: NDArray[np.int64], tolerances: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Keep the candidate pairs int64 [P, 2] that agree in colour and ink within their tolerances float32 [P].

    The ink of a pair differs by at least the difference of its sums, which spares most pairs the exact comparison.
    """
    ink = (WHITE - pictures.thumbnails.astype(np.float32)).sum(axis=(1, 2, 3))
    first, second = ink[candidates[:, 0]], ink[candidates[:, 1]]
    is_possible = np.abs(first - second) <= tolerances * np.maximum((first + second) / 2.0, 1.0)
    candidates, tolerances = candidates[is_possible], tolerances[is_possible]
    is_twin = np.zeros(len(candidates), dtype=np.bool_)
    for start in range(0, len(candidates), CANDIDATES_AT_ONCE):
        block = slice(start, start + CANDIDATES_AT_ONCE)
        left, right = (pictures.thumbnails[candidates[block, side]] for side in (0, 1))
        is_twin[block] = ink_difference(left, right) <= tolerances[block]
    return candidates[is_twin]
