"""The files of a shard: pieces merged into an index, stored vectors written as a stream, products and their order.

Nothing here holds more than one shard, and of its vectors no more than one part at a time. D is the dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import NDArray

from product_retrieval.catalog.row_pictures import KEY_BYTES
from product_retrieval.embeddings import KEY_COLUMNS, VECTOR_COLUMNS
from product_retrieval.errors import ArtifactError
from product_retrieval.index.build_steps import Build, piece_name
from product_retrieval.index.construction import merge_into_file
from product_retrieval.index.layout import ShardPlan
from product_retrieval.index.manifest import Shard, ShardSide, describe_file
from product_retrieval.index.spec import Side
from product_retrieval.storage import Storage, to_buffer

COUNTED_ROWS = 16_384
"""Stored vectors that are counted at once."""


def index_name(build: Build, plan: ShardPlan, side: Side) -> str:
    """Return the name of a side's index in a shard."""
    return build.path(f"{plan.name}/{side}.faiss")


def merge_pieces(build: Build, plan: ShardPlan, side: Side) -> str:
    """Merge the pieces of a side, in order, publish the index, and delete them; return its name."""
    name = index_name(build, plan, side)
    pieces = [piece_name(build, plan, side, number) for number in range(len(plan.pieces()))]
    if not build.output.exists(name):
        with build.output.new_file(name) as path:
            merge_into_file((build.output.read(piece) for piece in pieces), path)
    for piece in pieces:
        build.output.delete(piece)
    return name


def gather_vectors(build: Build, plan: ShardPlan, side: Side) -> str:
    """Publish the float16 vectors of a side by row, zeros where a product has none; return the file's name."""
    name = build.path(f"{plan.name}/{side}.vectors.npy")
    if not build.output.exists(name):
        dim = build.manifest.fingerprint.dim
        with build.output.new_file(name) as path, path.open("wb") as file:
            header = {"descr": "<f2", "fortran_order": False, "shape": (plan.num_rows, dim)}
            npy.write_array_header_1_0(file, header)
            for source in plan.sources:
                vectors = np.zeros((source.num_rows, dim), np.float16)
                values, rows = build.vectors(source, side)
                vectors[rows] = values
                file.write(vectors.data)
    return name


def gather_products(build: Build, plan: ShardPlan) -> tuple[str, str, str]:
    """Publish the products of a shard by row, their rows in the order of their ids, and the keys of their contents.

    Returns:
        The names of the three files.

    Raises:
        ArtifactError: a product id occurs twice.
    """
    names = [build.path(f"{plan.name}/{name}") for name in ("products.arrow", "rows_by_id.npy", "keys.npy")]
    products, order, keys = names
    if all(build.output.exists(name) for name in names):
        return products, order, keys
    tables, key_arrays = [], []
    for source in plan.sources:
        columns = [name for name in part_columns(build, source.part) if name not in VECTOR_COLUMNS]
        table = build.read(source, columns).replace_schema_metadata(None)
        key_arrays.append(content_keys(table))
        tables.append(table.drop_columns([name for name in KEY_COLUMNS if name in columns]))
    table = pa.concat_tables(tables, promote_options="default").combine_chunks()
    rows_by_id = order_of_ids(table.column("product_id"), build.embeddings.uri)
    with build.output.new_file(products) as path:
        write_products(table, str(path))
    build.output.put_if_absent(order, to_npy(rows_by_id))
    build.output.put_if_absent(keys, to_npy(np.concatenate(key_arrays)))
    return products, order, keys


def check_ids(build: Build, products: Sequence[str], number: int) -> None:
    """Check that no product of a shard is in an earlier one.

    Args:
        build: whose shards they are.
        products: names of the files of products of all shards.
        number: the shard.

    Raises:
        ArtifactError: a product id occurs twice.
    """
    own = read_products(build.output, products[number]).column("product_id")
    for earlier in products[:number]:
        is_repeated = pc.is_in(read_products(build.output, earlier).column("product_id"), value_set=own)
        if pc.any(is_repeated).as_py():
            ids = read_products(build.output, earlier).column("product_id")
            twice = ids[pc.index(is_repeated, True).as_py()].as_py()
            raise ArtifactError(f"{build.embeddings.uri}: product id {twice!r} occurs twice", path=build.embeddings.uri)


def read_products(storage: Storage, name: str) -> pa.Table:
    """Return the products of a shard, memory-mapped where they lie on this machine."""
    source = pa.memory_map(storage.path(name)) if storage.is_local else pa.BufferReader(storage.read(name))
    return pa.ipc.open_file(source).read_all()


def part_columns(build: Build, part: int) -> list[str]:
    """Return the names of a part's columns."""
    with build.embeddings.open(build.manifest.parts[part].name) as file:
        return list(pq.read_schema(file).names)


def content_keys(table: pa.Table) -> NDArray[np.uint8]:
    """Return what each product's picture and text are known by, uint8 [rows, 2 x KEY_BYTES]; zeros for none."""
    keys = np.zeros((len(table), len(KEY_COLUMNS), KEY_BYTES), np.uint8)
    for number, name in enumerate(KEY_COLUMNS):
        if name in table.column_names:
            column = table.column(name).combine_chunks()
            is_present = column.is_valid().to_numpy(zero_copy_only=False)
            data = b"".join(column.drop_null().to_pylist())
            keys[is_present, number] = np.frombuffer(data, np.uint8).reshape(-1, KEY_BYTES)
    return keys.reshape(len(table), -1)


def order_of_ids(ids: pa.ChunkedArray, where: str) -> NDArray[np.int64]:
    """Return the rows in the order of their product ids, int64 [rows].

    Raises:
        ArtifactError: an id occurs twice.
    """
    order = pc.sort_indices(ids)
    ordered = ids.take(order)
    is_repeated = pc.equal(ordered[1:], ordered[:-1])
    if pc.any(is_repeated).as_py():
        twice = ordered[pc.index(is_repeated, True).as_py()].as_py()
        raise ArtifactError(f"{where}: product id {twice!r} occurs twice", path=where)
    return np.asarray(order.to_numpy(), np.int64)


def write_products(table: pa.Table, path: str) -> None:
    """Write a shard's products as an Arrow file; in few chunks, as rows are taken from it at every search."""
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def to_npy(array: NDArray[np.generic]) -> bytes:
    """Return an array as the bytes of a .npy file."""
    return to_buffer(lambda file: np.save(file, array, allow_pickle=False))


def describe_shard(
    build: Build, plan: ShardPlan, first_row: int, products: Sequence[str], sides: Mapping[Side, tuple[str, str]]
) -> Shard:
    """Return the manifest's record of a shard, from its files as they are now.

    Args:
        build: whose it is.
        plan: what it was made of.
        first_row: row in the version of its first product.
        products: the names from gather_products.
        sides: by side, the names of the index and of the vectors.
    """
    output = build.output
    described = {
        side: ShardSide(describe_file(output, index), describe_file(output, vectors), count_stored(output, vectors))
        for side, (index, vectors) in sides.items()
    }
    return Shard(
        first_row=first_row,
        num_rows=plan.num_rows,
        products=describe_file(output, products[0]),
        rows_by_id=describe_file(output, products[1]),
        keys=describe_file(output, products[2]),
        sides={side: each for side, each in described.items() if each.num_vectors},
    )


def count_stored(storage: Storage, name: str) -> int:
    """Return how many rows of stored vectors are not zeros."""
    with storage.open(name) as file:
        npy.read_magic(file)
        (num_rows, dim), _, _ = npy.read_array_header_1_0(file)
        found = 0
        for start in range(0, num_rows, COUNTED_ROWS):
            size = min(COUNTED_ROWS, num_rows - start) * dim * 2
            found += int(np.frombuffer(file.read(size), np.uint16).reshape(-1, dim).any(axis=1).sum())
    return found
