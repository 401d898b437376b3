"""Meshes of furniture with their materials, read from Wavefront OBJ and MTL files and textures."""

from __future__ import annotations

import io
import itertools
import posixpath
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tools.furniture import Furniture

TEXTURE_PX = 256
GREY = (0.8, 0.8, 0.8)


@dataclass(frozen=True, slots=True)
class Mesh:
    """Triangles with materials; V vertices, F triangles, M materials."""

    vertices: NDArray[np.float32]
    """[V, 3], x right, y up, z to the front, centred, diagonal of the bounding box 1; each in a triangle."""
    triangles: NDArray[np.int64]
    """[F, 3] vertices."""
    texture_coordinates: NDArray[np.float32]
    """[F, 3, 2]; zeros where there are none."""
    normals: NDArray[np.float32]
    """[F, 3], unit length; either side may be the outside."""
    materials: NDArray[np.int64]
    """[F]."""
    colors: NDArray[np.float32]
    """[M, 3] diffuse colour in [0, 1]; white under a texture."""
    opacity: NDArray[np.float32]
    """[M]."""
    texture_of: NDArray[np.int64]
    """[M] row of the material's texture, -1 without one."""
    textures: NDArray[np.float32]
    """[T, H, W, 3] in [0, 1]; a smaller texture lies in the upper left corner. T is at least 1."""
    texture_sizes: NDArray[np.int64]
    """[T, 2] height and width."""


def read_mesh(library: zipfile.ZipFile, furniture: Furniture) -> Mesh:
    """Read an item's model with its materials and textures, upright and in the proportions of its sizes.

    Raises:
        KeyError: the library has no such file.
        ValueError: the model has no triangles.
    """
    path = furniture.model_path
    vertices: list[list[float]] = []
    coordinates: list[list[float]] = [[0.0, 0.0]]
    triangles, corners, materials = [], [], []
    names, current = [""], 0
    definitions: dict[str, _Material] = {}
    for line in library.read(path).decode("latin-1").splitlines():
        keyword, _, rest = line.strip().partition(" ")
        if keyword == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif keyword == "vt":
            coordinates.append([float(x) for x in rest.split()[:2]])
        elif keyword == "usemtl":
            name = rest.strip()
            if name not in names:
                names.append(name)
            current = names.index(name)
        elif keyword == "mtllib":
            definitions.update(_read_materials(library, path, rest.strip()))
        elif keyword == "f":
            polygon = [_corner(word, len(vertices), len(coordinates)) for word in rest.split()]
            for second, third in itertools.pairwise(polygon[1:]):
                triangles.append([polygon[0][0], second[0], third[0]])
                corners.append([polygon[0][1], second[1], third[1]])
                materials.append(current)
    if not triangles:
        raise ValueError(f"{path}: no triangles")
    corner_rows = np.array(triangles, np.int64)
    kept, compact = np.unique(corner_rows, return_inverse=True)
    placed = _placed(np.array(vertices, np.float64)[kept], furniture)
    compact = compact.reshape(corner_rows.shape)
    used = [definitions.get(name, _Material()) for name in names]
    stack, sizes, texture_of = _stacked([material.texture for material in used])
    return Mesh(
        vertices=placed,
        triangles=compact,
        texture_coordinates=np.array(coordinates, np.float32)[np.array(corners)],
        normals=_normals(placed[compact]),
        materials=np.array(materials, np.int64),
        colors=np.array([(1.0, 1.0, 1.0) if m.texture is not None else m.color for m in used], np.float32),
        opacity=np.array([m.opacity for m in used], np.float32),
        texture_of=texture_of,
        textures=stack,
        texture_sizes=sizes,
    )


@dataclass(slots=True)
class _Material:
    color: tuple[float, ...] = GREY
    opacity: float = 1.0
    texture: NDArray[np.float32] | None = None


def _corner(word: str, num_vertices: int, num_coordinates: int) -> tuple[int, int]:
    """Return the vertex and texture coordinate of a corner `v`, `v/vt` or `v/vt/vn`; negative ones count back."""
    fields = word.split("/")
    vertex = int(fields[0])
    coordinate = int(fields[1]) if len(fields) > 1 and fields[1] else 0
    return (
        vertex - 1 if vertex > 0 else num_vertices + vertex,
        coordinate if coordinate >= 0 else num_coordinates + coordinate,
    )


def _placed(vertices: NDArray[np.float64], furniture: Furniture) -> NDArray[np.float32]:
    turned = vertices @ np.array(furniture.rotation).reshape(3, 3).T
    low, extent = turned.min(axis=0), np.ptp(turned, axis=0)
    wanted = np.array([furniture.width_cm, furniture.height_cm, furniture.depth_cm])
    sized = (turned - low - extent / 2) * np.where(extent > 0, wanted / np.maximum(extent, 1e-12), 1.0)
    diagonal = float(np.linalg.norm(np.ptp(sized, axis=0)))
    return np.asarray(sized / diagonal, np.float32)


def _normals(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.asarray(normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12), np.float32)


def _stacked(
    textures: list[NDArray[np.float32] | None],
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Put textures of unequal sizes into one array, for compiled code: [T, H, W, 3], their sizes, and whose each is."""
    present = [texture for texture in textures if texture is not None]
    sizes = np.array([texture.shape[:2] for texture in present] or [(1, 1)], np.int64)
    stack = np.ones((len(sizes), *sizes.max(axis=0), 3), np.float32)
    for row, texture in enumerate(present):
        stack[row, : texture.shape[0], : texture.shape[1]] = texture
    has_texture = np.array([texture is not None for texture in textures])
    return stack, sizes, np.where(has_texture, np.cumsum(has_texture) - 1, -1)


def _read_materials(library: zipfile.ZipFile, model_path: str, name: str) -> dict[str, _Material]:
    folder = posixpath.dirname(model_path)
    by_lower_case = {file.lower(): file for file in library.namelist()}
    found = by_lower_case.get(posixpath.normpath(posixpath.join(folder, name)).lower())
    if found is None:
        return {}
    materials: dict[str, _Material] = {}
    current = _Material()
    for line in library.read(found).decode("latin-1").splitlines():
        keyword, _, rest = line.strip().partition(" ")
        if keyword == "newmtl":
            current = materials.setdefault(rest.strip(), _Material())
        elif keyword == "Kd":
            values = tuple(float(x) for x in rest.split()[:3])
            current.color = values if len(values) == 3 else GREY
        elif keyword == "d":
            current.opacity = float(rest.split()[-1])
        elif keyword == "map_Kd":
            texture = by_lower_case.get(posixpath.normpath(posixpath.join(folder, rest.split()[-1])).lower())
            current.texture = _read_texture(library, texture) if texture else None
    return materials


def _read_texture(library: zipfile.ZipFile, path: str) -> NDArray[np.float32] | None:
    try:
        image = Image.open(io.BytesIO(library.read(path))).convert("RGB")
    except OSError:  # a few textures are in formats that Pillow does not know; the diffuse colour stands in
        return None
    image.thumbnail((TEXTURE_PX, TEXTURE_PX))
    return np.asarray(image, np.float32) / np.float32(255)
