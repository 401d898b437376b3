"""Meshes to pictures: a small software renderer with a depth buffer, so that the demo needs no graphics hardware.

Perspective camera, one distant light from the front upper right, flat shading, textures, see-through materials
blended over what is behind them, and supersampling against jagged edges. F triangles, M materials, S samples a side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from tools.meshes import Mesh

LIGHT = (0.35, 0.6, 0.72)
"""Direction to the light, as the camera sees it."""
AMBIENT, DIFFUSE = 0.42, 0.54
"""Together below 1, so that white things stand out from a white background."""
CAMERA_DISTANCE = 2.2
"""In units of the mesh's longest diagonal."""
FRAME_SHARE = 0.92
OPAQUE = 0.9
"""Materials above this opacity hide what is behind them."""
MIN_VISIBLE_OPACITY = 0.25
SAME_COLOR = 0.08
"""Untextured materials whose channels differ by less are one surface to the eye."""
MAX_PATTERN = 1.4
"""How much lighter than its mean a recoloured texture may be, as long as no channel saturates."""
PROBE_PX = 64
LUMINANCE = (0.299, 0.587, 0.114)
"""ITU-R BT.601."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Where the camera stands and what is behind the object."""

    azimuth_deg: float
    elevation_deg: float
    zoom: float = 1.0
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    brightness: float = 1.0


def render(mesh: Mesh, view: View, size_px: int, *, supersampling: int = 2) -> NDArray[np.uint8]:
    """Draw a mesh.

    Args:
        mesh: what to draw.
        view: from where.
        size_px: side of the square picture.
        supersampling: samples a pixel along each axis.

    Returns:
        uint8 [size_px, size_px, 3].
    """
    picture, _ = _draw(mesh, view, size_px * supersampling)
    averaged = picture.reshape(size_px, supersampling, size_px, supersampling, 3).mean(axis=(1, 3))
    return np.asarray((averaged.clip(0, 1) * 255).round(), np.uint8)


def visible_materials(mesh: Mesh, view: View) -> NDArray[np.int32]:
    """Return which material each pixel of a small picture shows, int32 [PROBE_PX, PROBE_PX]; -1 is background."""
    _, owner = _draw(mesh, view, PROBE_PX)
    return owner


def dominant_materials(mesh: Mesh, view: View) -> tuple[tuple[int, ...], float]:
    """Return the opaque materials of one look that cover most of a view, and their share of the object's pixels."""
    owner = visible_materials(mesh, view)
    pixels = np.bincount(owner[owner >= 0], minlength=len(mesh.colors)) * (mesh.opacity >= OPAQUE)
    plain = mesh.texture_of < 0
    distance = np.abs(mesh.colors[:, None] - mesh.colors[None]).max(axis=2)
    alike = (distance < SAME_COLOR) & plain[:, None] & plain[None] | np.eye(len(plain), dtype=bool)
    best = int(np.argmax(alike @ pixels))
    chosen = np.flatnonzero(alike[best] & (mesh.opacity >= OPAQUE))
    return tuple(int(m) for m in chosen), float(pixels[chosen].sum() / max(int((owner >= 0).sum()), 1))


def recolored(mesh: Mesh, materials: tuple[int, ...], color: tuple[float, float, float]) -> Mesh:
    """Return a mesh with some materials in another diffuse colour; a texture keeps its pattern of light and dark."""
    colors = mesh.colors.copy()
    colors[list(materials)] = color
    brightest = min(MAX_PATTERN, 1 / max(color))
    rows = [int(mesh.texture_of[m]) for m in materials if mesh.texture_of[m] >= 0]
    textures = mesh.textures.copy() if rows else mesh.textures
    for row in rows:
        height, width = mesh.texture_sizes[row]
        luminance = textures[row, :height, :width] @ np.array(LUMINANCE, np.float32)
        pattern = 0.5 + 0.5 * luminance / max(float(luminance.mean()), 1e-3)
        textures[row, :height, :width] = np.clip(pattern, 0, brightest)[..., None]
    return replace(mesh, colors=colors, textures=textures)


def visible_change(before: Mesh, after: Mesh, view: View) -> float:
    """Return the mean difference of two meshes of one shape, 0 to 255, over the pixels that they cover in a view."""
    covered = visible_materials(before, view) >= 0
    if not covered.any():
        return 0.0
    pictures = [render(mesh, view, PROBE_PX, supersampling=1).astype(np.int64) for mesh in (before, after)]
    return float(np.abs(pictures[0] - pictures[1])[covered].mean())


def _draw(mesh: Mesh, view: View, samples: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the picture, float32 [S, S, 3], and each sample's material, int32 [S, S]."""
    rotation = _rotation(view)
    rotated = mesh.vertices @ rotation.T
    flat = rotated[:, :2] * (CAMERA_DISTANCE / (CAMERA_DISTANCE - rotated[:, 2:3]))
    low, high = flat.min(axis=0), flat.max(axis=0)
    factor = FRAME_SHARE * samples * view.zoom / max(float((high - low).max()), 1e-6)
    centered = (flat - (low + high) / 2) * factor
    points = np.stack([samples / 2 + centered[:, 0], samples / 2 - centered[:, 1], rotated[:, 2]], axis=1)
    light = np.array(LIGHT, np.float32) @ rotation
    shade = (AMBIENT + DIFFUSE * np.abs(mesh.normals @ light)) * view.brightness
    picture = np.empty((samples, samples, 3), np.float32)
    picture[:] = view.background
    depth = np.full((samples, samples), -np.inf, np.float32)
    owner = np.full((samples, samples), -1, np.int32)
    triangles = (points.astype(np.float32)[mesh.triangles], mesh.texture_coordinates, shade.astype(np.float32))
    surfaces = (mesh.materials, mesh.colors, mesh.opacity, mesh.texture_of, mesh.textures, mesh.texture_sizes)
    for is_transparent in (False, True):
        _rasterize(*triangles, *surfaces, picture, depth, owner, is_transparent)
    return picture, owner


def _rotation(view: View) -> NDArray[np.float32]:
    azimuth, elevation = np.radians(view.azimuth_deg), np.radians(view.elevation_deg)
    turn = [[np.cos(azimuth), 0, np.sin(azimuth)], [0, 1, 0], [-np.sin(azimuth), 0, np.cos(azimuth)]]
    tilt = [[1, 0, 0], [0, np.cos(elevation), -np.sin(elevation)], [0, np.sin(elevation), np.cos(elevation)]]
    return (np.array(tilt) @ np.array(turn)).astype(np.float32)


@numba.njit(cache=True)
def _rasterize(
    points: Any,
    coordinates: Any,
    shade: Any,
    materials: Any,
    colors: Any,
    opacity: Any,
    texture_of: Any,
    textures: Any,
    texture_sizes: Any,
    picture: Any,
    depth: Any,
    owner: Any,
    is_transparent: bool,
) -> None:
    """Paint the opaque or the see-through triangles into `picture`, `depth` and `owner`."""
    size = picture.shape[0]
    for f in range(points.shape[0]):
        material = materials[f]
        if (opacity[material] < OPAQUE) != is_transparent:
            continue
        x0, y0 = points[f, 0, 0], points[f, 0, 1]
        x1, y1 = points[f, 1, 0], points[f, 1, 1]
        x2, y2 = points[f, 2, 0], points[f, 2, 1]
        area = (y1 - y2) * (x0 - x2) + (x2 - x1) * (y0 - y2)
        if abs(area) < 1e-9:
            continue
        left, right = max(int(np.floor(min(x0, x1, x2))), 0), min(int(np.ceil(max(x0, x1, x2))), size - 1)
        top, bottom = max(int(np.floor(min(y0, y1, y2))), 0), min(int(np.ceil(max(y0, y1, y2))), size - 1)
        alpha = max(opacity[material], MIN_VISIBLE_OPACITY) if is_transparent else 1.0
        texture = texture_of[material]
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                a = ((y1 - y2) * (x + 0.5 - x2) + (x2 - x1) * (y + 0.5 - y2)) / area
                b = ((y2 - y0) * (x + 0.5 - x2) + (x0 - x2) * (y + 0.5 - y2)) / area
                c = 1 - a - b
                if a < -1e-4 or b < -1e-4 or c < -1e-4:
                    continue
                z = a * points[f, 0, 2] + b * points[f, 1, 2] + c * points[f, 2, 2]
                if z <= depth[y, x]:
                    continue
                row = column = 0
                if texture >= 0:
                    u = a * coordinates[f, 0, 0] + b * coordinates[f, 1, 0] + c * coordinates[f, 2, 0]
                    v = a * coordinates[f, 0, 1] + b * coordinates[f, 1, 1] + c * coordinates[f, 2, 1]
                    height, width = texture_sizes[texture, 0], texture_sizes[texture, 1]
                    column = min(int((u - np.floor(u)) * width), width - 1)
                    row = min(int((1 - (v - np.floor(v))) * height), height - 1)
                for channel in range(3):
                    value = colors[material, channel]
                    if texture >= 0:
                        value *= textures[texture, row, column, channel]
                    lit = min(1.0, value * shade[f])
                    picture[y, x, channel] = picture[y, x, channel] * (1 - alpha) + alpha * lit
                if is_transparent:
                    owner[y, x] = material if owner[y, x] < 0 else owner[y, x]
                else:
                    depth[y, x] = z
                    owner[y, x] = material
