"""Arrow streams and files, and the folders that `datasets` saves them in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from product_retrieval.catalog import CatalogPlan, ColumnOptions, plan_catalog, read_slice
from product_retrieval.catalog.slices import IMAGE, SOURCE
from product_retrieval.errors import CatalogError
from product_retrieval.pictures import load_picture

Maker = Callable[..., bytes]
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_arrow(path: Path, columns: dict[str, Any], *, batch_rows: int = 1000, is_file: bool = False) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    open_writer = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with open_writer(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return str(path)


def save_to_disk(folder: Path, shards: list[dict[str, Any]]) -> str:
    """Write what `Dataset.save_to_disk` leaves."""
    names = [f"data-{i:05d}-of-{len(shards):05d}.arrow" for i in range(len(shards))]
    for name, columns in zip(names, shards, strict=True):
        write_arrow(folder / name, columns)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "1", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"title": {"_type": "Value"}}}))
    return str(folder)


def products_of(plan: CatalogPlan) -> list[dict[str, Any]]:
    return [row for slice_ in plan.slices for row in read_slice(plan, slice_).table.to_pylist()]


def rejected(plan: CatalogPlan) -> list[tuple[str | None, str]]:
    return [(r.product_id, r.reason) for slice_ in plan.slices for r in read_slice(plan, slice_).rejections]


def ids_of(plan: CatalogPlan) -> list[str]:
    return [row["product_id"] for row in products_of(plan)]


# Files


@pytest.mark.parametrize("is_file", [False, True])
@pytest.mark.parametrize("rows_per_part", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_parts_and_batches_of_any_size_give_the_same_products(
    tmp_path: Path, png: Maker, is_file: bool, rows_per_part: int, batch_rows: int
) -> None:
    pictures = [png((i, 0, 0)) for i in range(7)]
    cells = pa.array([{"bytes": picture, "path": "x.png"} for picture in pictures], CELL)
    columns = {"product_id": [f"p{i}" for i in range(7)], "title": ["mug"] * 7, "image": cells}
    path = write_arrow(tmp_path / "a.arrow", columns, batch_rows=batch_rows, is_file=is_file)
    plan = plan_catalog(path, rows_per_part=rows_per_part)
    rows = products_of(plan)
    assert [row["product_id"] for row in rows] == [f"p{i}" for i in range(7)]
    assert [row[SOURCE] for row in rows] == [f"a.arrow:{i}" for i in range(7)]
    assert [row[IMAGE] for row in rows] == pictures
    assert [load_picture(plan.image_root, row["image_ref"]) for row in rows] == pictures
    assert [slice_.num_rows for slice_ in plan.slices][:-1] == [rows_per_part] * (len(plan.slices) - 1)
    assert plan == plan_catalog(path, rows_per_part=rows_per_part)


def test_cells_are_bytes_or_a_path_or_nothing(tmp_path: Path, png: Maker) -> None:
    (tmp_path / "b.png").write_bytes(png((9, 9, 9)))
    cells = [
        {"bytes": png((1, 1, 1)), "path": "/cache/on/another/machine.png"},
        {"bytes": None, "path": "b.png"},
        {"bytes": None, "path": None},
        None,
        {"bytes": None, "path": "/etc/passwd"},
        {"bytes": None, "path": "gone.png"},
    ]
    columns = {"product_id": list("123456"), "image": pa.array(cells, CELL), "title": list("abcdef")}
    plan = plan_catalog(write_arrow(tmp_path / "a.arrow", columns))
    rows = products_of(plan)
    assert [row[IMAGE] for row in rows] == [png((1, 1, 1)), png((9, 9, 9)), None, None]
    assert [row["image_ref"] is not None for row in rows] == [True, True, False, False]
    assert rows[1]["image_ref"] == "b.png"
    assert rejected(plan) == [("5", "image_outside_root"), ("6", "image_not_found")]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_plain_bytes_are_pictures(tmp_path: Path, png: Maker, kind: pa.DataType) -> None:
    columns = {"product_id": ["1", "2"], "photo": pa.array([None, png()], kind)}
    plan = plan_catalog(write_arrow(tmp_path / "a.arrow", columns), columns=ColumnOptions(image="photo"))
    (first, second) = products_of(plan)
    assert (first[IMAGE], second[IMAGE]) == (None, png())
    assert load_picture(plan.image_root, second["image_ref"], image_column="photo") == png()


def test_attributes_keep_their_types(tmp_path: Path) -> None:
    columns = {"product_id": [1], "title": ["mug"], "price": pa.array([4.5], pa.float32()), "tags": [["a", "b"]]}
    plan = plan_catalog(write_arrow(tmp_path / "a.arrow", columns))
    table = read_slice(plan, plan.slices[0]).table
    assert table.schema.field("price").type == pa.float32()
    assert table.column("tags").to_pylist() == [["a", "b"]]
    assert ids_of(plan) == ["1"]


def test_compressed_batches_are_read(tmp_path: Path) -> None:
    table = pa.table({"product_id": list("abc"), "title": ["mug"] * 3})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema, options=options) as writer:
        writer.write_table(table)
    assert ids_of(plan_catalog(str(tmp_path / "a.arrow"))) == ["a", "b", "c"]


def test_files_with_other_columns_are_refused(tmp_path: Path) -> None:
    write_arrow(tmp_path / "a.arrow", {"product_id": ["1"], "title": ["a"]})
    write_arrow(tmp_path / "b.arrow", {"product_id": [2], "title": ["a"]})
    with pytest.raises(CatalogError, match=r"b\.arrow: .* product_id is int64, not string"):
        plan_catalog(str(tmp_path))


def test_dictionary_encoded_column_is_refused(tmp_path: Path) -> None:
    columns = {"product_id": ["1"], "title": pa.array(["a"]).dictionary_encode()}
    with pytest.raises(CatalogError, match="column 'title' is dictionary-encoded; save the catalogue as Parquet"):
        plan_catalog(write_arrow(tmp_path / "a.arrow", columns))


@pytest.mark.parametrize("num_bytes", [3, 100, -20, -8])
def test_cut_off_stream_is_refused(tmp_path: Path, num_bytes: int) -> None:
    path = Path(write_arrow(tmp_path / "a.arrow", {"product_id": ["1", "2"], "title": ["a", "b"]}, batch_rows=1))
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(CatalogError, match=r"a\.arrow: (not a readable Arrow file|cut off at byte)"):
        plan_catalog(str(path))


def test_stream_without_rows_is_refused(tmp_path: Path) -> None:
    empty = pa.array([], pa.string())
    with pytest.raises(CatalogError, match="holds no products"):
        plan_catalog(write_arrow(tmp_path / "a.arrow", {"product_id": empty, "title": empty}))


def test_file_that_shrank_after_planning_is_refused(tmp_path: Path) -> None:
    path = write_arrow(tmp_path / "a.arrow", {"product_id": list("abcd"), "title": list("abcd")}, batch_rows=2)
    plan = plan_catalog(path, rows_per_part=2)
    write_arrow(tmp_path / "a.arrow", {"product_id": ["a"], "title": ["a"]})
    with pytest.raises(CatalogError, match=r"a\.arrow: (changed while it was read|not a readable Arrow file|cut off)"):
        read_slice(plan, plan.slices[1])


def test_repeated_ids_keep_the_first(tmp_path: Path) -> None:
    columns = {"product_id": ["a", "b", "a"], "title": ["1", "2", "3"]}
    plan = plan_catalog(write_arrow(tmp_path / "a.arrow", columns, batch_rows=2), rows_per_part=2)
    assert [row["text"] for row in products_of(plan)] == ["1", "2"]
    assert rejected(plan) == [("a", "repeated_id")]


@pytest.mark.parametrize("reference", ["a.arrow#byte=1&row=0", "a.arrow#byte=99999&row=0", "a.arrow#byte={at}&row=5"])
def test_picture_that_is_not_there_is_none(tmp_path: Path, png: Maker, reference: str) -> None:
    path = write_arrow(tmp_path / "a.arrow", {"product_id": ["1"], "image": [png()]})
    plan = plan_catalog(path)
    assert load_picture(str(tmp_path), f"a.arrow#byte={plan.slices[0].start}&row=0") == png()
    assert load_picture(str(tmp_path), reference.format(at=plan.slices[0].start)) is None


# Folders that `datasets` saved


def test_saved_data_set_is_read_in_its_own_order(tmp_path: Path) -> None:
    path = save_to_disk(
        tmp_path / "shop", [{"product_id": ["z"], "title": ["1"]}, {"product_id": ["a"], "title": ["2"]}]
    )
    write_arrow(tmp_path / "shop" / "cache-0123.arrow", {"product_id": ["cached"], "title": ["3"]})
    plan = plan_catalog(path)
    assert plan.kind == "arrow"
    assert ids_of(plan) == ["z", "a"]


def test_data_set_of_several_splits_asks_which(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save_to_disk(tmp_path / "shop" / split, [{"product_id": [split], "title": ["mug"]}])
    (tmp_path / "shop" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(CatalogError, match=r"in the splits test, train; name one, such as .*/shop/test"):
        plan_catalog(str(tmp_path / "shop"))
    assert ids_of(plan_catalog(str(tmp_path / "shop" / "train"))) == ["train"]


def test_data_set_of_one_split_is_that_split(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "shop" / "train", [{"product_id": ["1"], "title": ["mug"]}])
    (tmp_path / "shop" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert ids_of(plan_catalog(str(tmp_path / "shop"))) == ["1"]


def test_data_set_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    path = save_to_disk(
        tmp_path / "shop", [{"product_id": ["1"], "title": ["a"]}, {"product_id": ["2"], "title": ["b"]}]
    )
    (tmp_path / "shop" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(CatalogError, match=r"state\.json: names data-00001-of-00002\.arrow, which is not there"):
        plan_catalog(path)


@pytest.mark.parametrize("state", ["", "{}", "[]", '{"_data_files": [{}]}', '{"_data_files": 5}'])
def test_broken_state_is_refused(tmp_path: Path, state: str) -> None:
    path = save_to_disk(tmp_path / "shop", [{"product_id": ["1"], "title": ["a"]}])
    (tmp_path / "shop" / "state.json").write_text(state)
    with pytest.raises(CatalogError, match=r"state\.json: does not name the files of a data set"):
        plan_catalog(path)


def test_state_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    write_arrow(tmp_path / "secret.arrow", {"product_id": ["1"], "title": ["a"]})
    path = save_to_disk(tmp_path / "shop", [{"product_id": ["1"], "title": ["a"]}])
    (tmp_path / "shop" / "state.json").write_text('{"_data_files": [{"filename": "../secret.arrow"}]}')
    with pytest.raises(CatalogError, match="which is not there"):
        plan_catalog(path)


def test_parquet_of_the_hub_is_read_with_its_picture_cells(tmp_path: Path, png: Maker) -> None:
    for i in range(2):
        cells = pa.array(
            [{"bytes": png((i, 0, 0)), "path": f"{i}.png"}, {"bytes": None, "path": f"gone-{i}.png"}], CELL
        )
        table = pa.table({"id": [10 * i, 10 * i + 1], "image": cells, "text": ["mug", "cup"]})
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "data" / f"train-{i:05d}-of-00002.parquet")
    (tmp_path / "README.md").write_text("# Shop, a data set\n")
    plan = plan_catalog(str(tmp_path), columns=ColumnOptions(product_id="id"))
    rows = products_of(plan)
    assert [(row["product_id"], row[IMAGE]) for row in rows] == [("0", png((0, 0, 0))), ("10", png((1, 0, 0)))]
    assert [load_picture(plan.image_root, row["image_ref"]) for row in rows] == [row[IMAGE] for row in rows]
    assert rejected(plan) == [("1", "image_not_found"), ("11", "image_not_found")]


# Image folders


def write_metadata(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if suffix == "csv":
        lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
        (folder / "metadata.csv").write_text("\n".join(lines))
    elif suffix == "jsonl":
        (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_file_names_of_an_image_folder_are_pictures_and_ids(tmp_path: Path, png: Maker, suffix: str) -> None:
    write_metadata(
        tmp_path, suffix, [{"file_name": "deep/a.png", "text": "mug"}, {"file_name": "gone.png", "text": "cup"}]
    )
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.png").write_bytes(png())
    plan = plan_catalog(str(tmp_path))
    assert [(row["product_id"], row["text"], row[IMAGE], row["image_ref"]) for row in products_of(plan)] == [
        ("deep/a.png", "mug", png(), "deep/a.png")
    ]
    assert rejected(plan) == [("gone.png", "image_not_found")]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_file_names_are_relative_to_their_metadata(tmp_path: Path, png: Maker, suffix: str) -> None:
    for color, split in enumerate(("test", "train")):
        write_metadata(tmp_path / split, suffix, [{"file_name": "a.png", "text": split}])
        (tmp_path / split / "a.png").write_bytes(png((color, 0, 0)))
    rows = products_of(plan_catalog(str(tmp_path)))
    assert [(row["product_id"], row["text"], row[IMAGE]) for row in rows] == [
        ("test/a.png", "test", png((0, 0, 0))),
        ("train/a.png", "train", png((1, 0, 0))),
    ]


def test_ids_of_an_image_folder_are_used_where_there_are_any(tmp_path: Path, png: Maker) -> None:
    write_metadata(tmp_path / "train", "csv", [{"file_name": "a.png", "product_id": "mug", "sku": "s1"}])
    (tmp_path / "train" / "a.png").write_bytes(png())
    (row,) = products_of(plan_catalog(str(tmp_path)))
    assert (row["product_id"], row["image_ref"]) == ("mug", "train/a.png")
    assert ids_of(plan_catalog(str(tmp_path), columns=ColumnOptions(product_id="sku"))) == ["s1"]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd"])
def test_file_name_that_leads_astray_is_rejected(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    write_metadata(tmp_path / "shop", "csv", [{"file_name": name, "text": "mug"}])
    assert rejected(plan_catalog(str(tmp_path / "shop"))) == [(name, "image_outside_root")]


def test_table_of_another_name_keeps_its_columns(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text("product_id,title,file_name\n1,mug,a.png\n")
    plan = plan_catalog(str(tmp_path))
    assert (plan.has_image, plan.attribute_names) == (False, ["title", "file_name"])
