"""Catalogues of every kind, planned into parts and read back as products and rejections."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from product_retrieval.catalog import CatalogPlan, ColumnOptions, plan_catalog, read_slice
from product_retrieval.catalog.contained import MAX_IMAGE_BYTES, UnreadableImageError, read_file_below
from product_retrieval.catalog.products import render_text
from product_retrieval.catalog.slices import IMAGE, SOURCE
from product_retrieval.errors import CatalogError

Maker = Callable[..., bytes]


def write_parquet(path: Path, columns: dict[str, Any], **how: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **how)
    return str(path)


def products_of(plan: CatalogPlan) -> list[dict[str, Any]]:
    """Return the products of all slices in order."""
    return [row for slice_ in plan.slices for row in read_slice(plan, slice_).table.to_pylist()]


def rejected(plan: CatalogPlan) -> list[tuple[str | None, str]]:
    """Return id and reason of all rejections in order."""
    return [(r.product_id, r.reason) for slice_ in plan.slices for r in read_slice(plan, slice_).rejections]


def ids_of(plan: CatalogPlan) -> list[str]:
    return [row["product_id"] for row in products_of(plan)]


# Parquet


@pytest.mark.parametrize("rows_per_part", [1, 2, 3, 4, 7, 100])
@pytest.mark.parametrize("row_group_size", [1, 3, 100])
def test_parts_and_row_groups_of_any_size_give_the_same_products(
    tmp_path: Path, rows_per_part: int, row_group_size: int
) -> None:
    ids = [f"p{i}" for i in range(7)]
    path = write_parquet(tmp_path / "a.parquet", {"product_id": ids, "title": ids}, row_group_size=row_group_size)
    plan = plan_catalog(path, rows_per_part=rows_per_part)
    assert ids_of(plan) == ids
    assert [row[SOURCE] for row in products_of(plan)] == [f"a.parquet:{row}" for row in range(7)]
    assert [slice_.num_rows for slice_ in plan.slices][:-1] == [rows_per_part] * (len(plan.slices) - 1)
    assert [slice_.part for slice_ in plan.slices] == list(range(len(plan.slices)))
    assert plan.num_products == 7


def test_folder_of_parquet_files_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    write_parquet(tmp_path / "b.parquet", {"product_id": ["3"], "title": ["c"]})
    write_parquet(tmp_path / "a.parquet", {"product_id": ["1", "2"], "title": ["a", "b"]})
    write_parquet(tmp_path / "deep" / "c.parquet", {"product_id": ["4"], "title": ["d"]})
    write_parquet(tmp_path / "_temporary" / "z.parquet", {"product_id": ["9"], "title": ["z"]})
    assert ids_of(plan_catalog(str(tmp_path))) == ["1", "2", "3", "4"]


def test_glob_takes_the_files_that_it_names(tmp_path: Path) -> None:
    for name in ("a1", "a2", "b1"):
        write_parquet(tmp_path / f"{name}.parquet", {"product_id": [name], "title": [name]})
    assert ids_of(plan_catalog(f"{tmp_path}/a*.parquet")) == ["a1", "a2"]


def test_parquet_files_with_other_columns_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"product_id": ["1"], "title": ["a"], "price": [1]})
    write_parquet(tmp_path / "b.parquet", {"product_id": ["2"], "title": ["b"], "price": ["2"], "size": [3]})
    with pytest.raises(CatalogError, match=r"b\.parquet: .* extra size; price is string, not int64"):
        plan_catalog(str(tmp_path))


def test_empty_parquet_file_beside_a_full_one_is_skipped(tmp_path: Path) -> None:
    empty = {"product_id": pa.array([], pa.string()), "title": pa.array([], pa.string())}
    write_parquet(tmp_path / "a.parquet", empty)
    write_parquet(tmp_path / "b.parquet", {"product_id": ["1"], "title": ["a"]})
    assert ids_of(plan_catalog(str(tmp_path))) == ["1"]


def test_catalogue_without_rows_is_refused(tmp_path: Path) -> None:
    empty = {"product_id": pa.array([], pa.string()), "title": pa.array([], pa.string())}
    with pytest.raises(CatalogError, match="holds no products"):
        plan_catalog(write_parquet(tmp_path / "a.parquet", empty))


def test_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1, and then the copy ended")
    with pytest.raises(CatalogError, match=r"a\.parquet: not a readable Parquet file"):
        plan_catalog(str(tmp_path / "a.parquet"))


def test_file_that_shrank_after_planning_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"product_id": ["1", "2"], "title": ["a", "b"]})
    plan = plan_catalog(path)
    write_parquet(tmp_path / "a.parquet", {"product_id": ["1"], "title": ["a"]})
    with pytest.raises(CatalogError, match="changed while it was read"):
        read_slice(plan, plan.slices[0])


def test_integer_ids_become_text(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"product_id": [7, 2**62], "title": ["a", "b"]})
    assert ids_of(plan_catalog(path)) == ["7", "4611686018427387904"]


def test_picture_bytes_refer_to_their_row(tmp_path: Path, png: Maker) -> None:
    pictures = [png((1, 2, 3)), None, png((4, 5, 6))]
    path = write_parquet(tmp_path / "a.parquet", {"product_id": ["1", "2", "3"], "image": pictures, "title": ["a"] * 3})
    rows = products_of(plan_catalog(path, rows_per_part=2))
    assert [row[IMAGE] for row in rows] == pictures
    assert [row["image_ref"] for row in rows] == ["a.parquet#row=0", None, "a.parquet#row=2"]


def test_struct_of_bytes_and_path_gives_the_bytes_or_the_file(tmp_path: Path, png: Maker) -> None:
    (tmp_path / "b.png").write_bytes(png((9, 9, 9)))
    cells = [
        {"bytes": png((1, 1, 1)), "path": "b.png"},
        {"bytes": None, "path": "b.png"},
        {"bytes": None, "path": None},
        None,
    ]
    path = write_parquet(tmp_path / "a.parquet", {"product_id": list("1234"), "image": cells, "title": list("abcd")})
    rows = products_of(plan_catalog(path))
    assert [row[IMAGE] for row in rows] == [png((1, 1, 1)), png((9, 9, 9)), None, None]
    assert [row["image_ref"] for row in rows] == ["a.parquet#row=0", "b.png", None, None]


def test_paths_are_read_below_the_image_root(tmp_path: Path, png: Maker) -> None:
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    (tmp_path / "pictures" / "deep" / "mug.png").write_bytes(png())
    path = write_parquet(tmp_path / "t" / "a.parquet", {"product_id": ["mug"], "image": ["deep/mug.png"]})
    plan = plan_catalog(path, image_root=str(tmp_path / "pictures"))
    assert [(row[IMAGE], row["image_ref"]) for row in products_of(plan)] == [(png(), "deep/mug.png")]


def test_picture_that_is_a_number_is_rejected_not_fatal(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"product_id": ["1"], "image": [5]})
    assert rejected(plan_catalog(path)) == [("1", "image_not_readable")]


def test_missing_image_is_rejected_not_fatal(tmp_path: Path, png: Maker) -> None:
    (tmp_path / "a.png").write_bytes(png())
    path = write_parquet(tmp_path / "a.parquet", {"product_id": ["1", "2"], "image": ["gone.png", "a.png"]})
    plan = plan_catalog(path)
    assert rejected(plan) == [("1", "image_not_found")]
    assert ids_of(plan) == ["2"]


def test_attributes_keep_their_types(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    names = pa.list_(pa.struct([("language", pa.string()), ("name", pa.string())]))
    columns = {
        "product_id": ["1"],
        "title": ["mug"],
        "price": pa.array([4.5], pa.float32()),
        "tags": [["a", "b"]],
        "names": pa.array([[{"language": "de", "name": "Becher"}]], names),
        "shade": pa.array(["red"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), path)
    plan = plan_catalog(str(path))
    table = read_slice(plan, plan.slices[0]).table
    assert plan.attribute_names == ["title", "price", "tags", "names", "shade"]
    assert [table.schema.field(name).type for name in plan.attribute_names] == [
        plan.schema.field(name).type for name in plan.attribute_names
    ]
    assert table.schema.field("price").type == pa.float32()
    assert table.column("names").to_pylist() == [[{"language": "de", "name": "Becher"}]]


@pytest.mark.parametrize("name", ["source", "image_cell", "image", "file", "row"])
def test_column_with_a_plain_name_stays_what_the_shop_wrote(tmp_path: Path, png: Maker, name: str) -> None:
    columns = {"product_id": ["1"], "title": ["mug"], "photo": [png()], name: ["the shop's"]}
    path = write_parquet(tmp_path / "a.parquet", columns)
    (row,) = products_of(plan_catalog(path, columns=ColumnOptions(image="photo")))
    assert (row[name], row[IMAGE], row[SOURCE]) == ("the shop's", png(), "a.parquet:0")


@pytest.mark.parametrize("name", ["image_vector", "text_vector", "image_ref"])
def test_column_that_the_job_writes_is_refused(tmp_path: Path, name: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"product_id": ["1"], "title": ["mug"], name: ["x"]})
    with pytest.raises(CatalogError, match=f"column '{name}' has the name of a column that this job writes"):
        plan_catalog(path)


# Ids


def test_repeated_ids_keep_the_first_over_parts_and_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"product_id": ["x", "y", "x"], "title": ["1", "2", "3"]})
    write_parquet(tmp_path / "b.parquet", {"product_id": ["z", "y"], "title": ["4", "5"]})
    plan = plan_catalog(str(tmp_path), rows_per_part=2)
    assert [(row["product_id"], row["text"]) for row in products_of(plan)] == [("x", "1"), ("y", "2"), ("z", "4")]
    assert rejected(plan) == [("x", "repeated_id"), ("y", "repeated_id")]
    assert [slice_.repeated for slice_ in plan.slices] == [(), (0,), (1,)]


def test_missing_and_empty_ids_are_rejected_and_repeat_nothing(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"product_id": [None, "", "1", None, ""], "title": list("abcde")})
    plan = plan_catalog(path)
    assert ids_of(plan) == ["1"]
    assert [reason for _, reason in rejected(plan)] == ["missing_id"] * 4


def test_products_and_rejections_make_up_every_slice(tmp_path: Path) -> None:
    columns = {"product_id": ["1", "1", None, "2"], "image": ["gone.png", None, None, None], "title": list("abcd")}
    plan = plan_catalog(write_parquet(tmp_path / "a.parquet", columns), rows_per_part=3)
    for slice_ in plan.slices:
        read = read_slice(plan, slice_)
        assert len(read.table) + len(read.rejections) == slice_.num_rows


# Columns


def test_missing_id_column_names_those_that_are_there(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"sku": ["1"], "title": ["a"]})
    with pytest.raises(CatalogError, match="no column 'product_id'; it has sku, title; name the id column with"):
        plan_catalog(path)
    assert ids_of(plan_catalog(path, columns=ColumnOptions(product_id="sku"))) == ["1"]


def test_missing_image_column_is_refused_only_when_it_was_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"product_id": ["1"], "title": ["a"]})
    assert plan_catalog(path).has_image is False
    with pytest.raises(CatalogError, match=r"no column 'photo' for --columns.image"):
        plan_catalog(path, columns=ColumnOptions(image="photo"))


def test_catalogue_with_nothing_to_encode_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"product_id": ["1"], "price": [2]})
    with pytest.raises(CatalogError, match="nothing to encode"):
        plan_catalog(path)


@pytest.mark.parametrize(
    ("names", "text", "template"),
    [
        (["text", "title"], None, "{text}"),
        (["title", "description"], None, "{title}. {description}"),
        (["description"], None, "{description}"),
        (["name", "brand"], "name", "{name}"),
        (["name", "brand"], "{brand}: {name}", "{brand}: {name}"),
    ],
)
def test_text_is_a_column_or_a_template(tmp_path: Path, names: list[str], text: str | None, template: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"product_id": ["1"], **{name: ["x"] for name in names}})
    assert plan_catalog(path, columns=ColumnOptions(text=text)).text_template == template


@pytest.mark.parametrize("text", ["brand", "{brand} {title}", "no fields at all"])
def test_template_of_no_known_column_is_refused(tmp_path: Path, text: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"product_id": ["1"], "title": ["x"]})
    with pytest.raises(CatalogError, match=r"for --columns.text; it has product_id, title"):
        plan_catalog(path, columns=ColumnOptions(text=text))


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        ("{title}. {description}", {"title": "Mug", "description": "Red."}, "Mug. Red."),
        ("{title}. {description}", {"title": "Mug", "description": None}, "Mug."),
        ("{title}. {description}", {"title": None, "description": "Red."}, "Red."),
        ("{title}. {description}", {"title": None, "description": None}, None),
        ("{title}. {description}", {"title": "  ", "description": ""}, None),
        ("{brand}, {title}", {"brand": None, "title": "Mug"}, "Mug"),
        ("{brand}: {title} - {size}", {"brand": None, "title": "Mug", "size": None}, "Mug"),
        ("{title} ({size})", {"title": "Mug", "size": 3}, "Mug (3)"),
        ("{tags}", {"tags": ["a", None, "b"]}, "a, b"),
        ("{tags}", {"tags": []}, None),
        ("{title}", {"title": "a\n b\t c"}, "a b c"),
        ("{title}", {"title": "Mug, 3.5 l - red"}, "Mug, 3.5 l - red"),
        ("{stock} pieces", {"stock": 0}, "0 pieces"),
    ],
)
def test_template_is_filled_without_dangling_punctuation(template: str, values: dict[str, Any], text: str) -> None:
    assert render_text(template, {name: [value] for name, value in values.items()}, 1) == [text]


# Folders of pictures


def test_folder_of_pictures_takes_text_from_sidecars(tmp_path: Path, png: Maker) -> None:
    (tmp_path / "chairs").mkdir()
    for name in ("b.png", "a.PNG", "chairs/c.jpg", ".hidden.png"):
        (tmp_path / name).write_bytes(png())
    (tmp_path / "b.txt").write_text("  blue\n bowl ")
    (tmp_path / "chairs" / "c.txt").write_bytes(b"caf\xe9 chair")
    (tmp_path / "a.txt").write_text(" \n")
    plan = plan_catalog(str(tmp_path), rows_per_part=2)
    rows = products_of(plan)
    assert [(row["product_id"], row["text"], row["image_ref"]) for row in rows] == [
        ("a.PNG", None, "a.PNG"),
        ("b.png", "blue bowl", "b.png"),
        ("chairs/c.jpg", "caf\ufffd chair", "chairs/c.jpg"),
    ]
    assert rows[0][IMAGE] == png()


def test_folder_with_a_table_and_its_pictures_is_the_table(tmp_path: Path, png: Maker) -> None:
    (tmp_path / "mug.png").write_bytes(png())
    (tmp_path / "shop.csv").write_text("product_id,image\nmug,mug.png\n")
    plan = plan_catalog(str(tmp_path))
    assert plan.kind == "csv"
    assert products_of(plan)[0][IMAGE] == png()


def test_picture_that_links_out_of_the_folder_is_rejected(tmp_path: Path, png: Maker) -> None:
    (tmp_path / "outside.png").write_bytes(png())
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "a.png").symlink_to(tmp_path / "outside.png")
    assert rejected(plan_catalog(str(tmp_path / "shop"))) == [("a.png", "image_outside_root")]


def test_sidecar_that_links_out_of_the_folder_is_not_read(tmp_path: Path, png: Maker) -> None:
    (tmp_path / "secret").write_text("password")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "a.png").write_bytes(png())
    (tmp_path / "shop" / "a.txt").symlink_to(tmp_path / "secret")
    assert "password" not in str(products_of(plan_catalog(str(tmp_path / "shop"))))


@pytest.mark.parametrize("uri", ["nothing", "nothing/*.parquet", "empty"])
def test_catalogue_that_is_not_there_is_an_error(tmp_path: Path, uri: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError, match=r"no such file or folder|no catalogue there"):
        plan_catalog(str(tmp_path / uri))


def test_folder_of_two_kinds_asks_which(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"product_id": ["1"], "title": ["x"]})
    (tmp_path / "a.csv").write_text("product_id,title\n2,y\n")
    with pytest.raises(CatalogError, match="holds parquet and csv files; name one kind with --kind"):
        plan_catalog(str(tmp_path))
    assert ids_of(plan_catalog(str(tmp_path), kind="csv")) == ["2"]


def test_single_file_of_unknown_suffix_is_read_as_the_named_kind(tmp_path: Path) -> None:
    (tmp_path / "export.dat").write_text("product_id\n2\n")
    with pytest.raises(CatalogError, match="known files end in"):
        plan_catalog(str(tmp_path / "export.dat"))
    plan = plan_catalog(str(tmp_path / "export.dat"), kind="csv", columns=ColumnOptions(text="product_id"))
    assert ids_of(plan) == ["2"]


# Paths that a catalogue must not lead to


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret.png", "image_outside_root"),
        ("a/../../secret.png", "image_outside_root"),
        ("..\\secret.png", "image_outside_root"),
        ("/etc/passwd", "image_outside_root"),
        ("a\0.png", "image_outside_root"),
        ("link.png", "image_outside_root"),
        ("linked/secret.png", "image_outside_root"),
        ("http://127.0.0.1/a.png", "image_url_not_allowed"),
        ("file:///etc/passwd", "image_url_not_allowed"),
        ("s3://bucket/a.png", "image_url_not_allowed"),
        ("folder", "image_not_readable"),
        ("pipe", "image_not_readable"),
        (".", "image_outside_root"),
        ("gone.png", "image_not_found"),
        ("a" * 300, "image_not_readable"),
    ],
)
def test_path_that_leads_astray_is_refused(tmp_path: Path, path: str, reason: str) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "linked").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    with pytest.raises(UnreadableImageError) as raised:
        read_file_below(str(root), path)
    assert raised.value.reason == reason


def test_root_whose_name_begins_alike_is_outside(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop-secret").mkdir()
    (tmp_path / "shop-secret" / "a.png").write_bytes(b"x")
    (tmp_path / "shop" / "a").symlink_to(tmp_path / "shop-secret")
    with pytest.raises(UnreadableImageError, match="image_outside_root"):
        read_file_below(str(tmp_path / "shop"), "a/a.png")


def test_link_within_the_root_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "b.png").symlink_to("a.png")
    assert read_file_below(str(tmp_path), "b.png") == b"picture"


def test_root_that_is_itself_a_link_is_a_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"picture")
    (tmp_path / "root").symlink_to("real")
    assert read_file_below(str(tmp_path / "root"), "a.png") == b"picture"


def test_file_too_large_for_a_picture_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)  # sparse: nothing is written
    with pytest.raises(UnreadableImageError, match="image_too_large"):
        read_file_below(str(tmp_path), "a.png")


# Fingerprints


def test_equal_input_gives_an_equal_plan(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"product_id": ["1"], "title": ["x"]})
    (tmp_path / "b.csv").write_text("product_id,title\n2,y\n")
    (tmp_path / "c.jsonl").write_text('{"product_id": "3", "title": "z"}\n')
    for name in ("a.parquet", "b.csv", "c.jsonl"):
        assert plan_catalog(str(tmp_path / name)) == plan_catalog(str(tmp_path / name))


def test_fingerprint_does_not_depend_on_where_the_catalogue_lies(tmp_path: Path) -> None:
    here = write_parquet(tmp_path / "here" / "a.parquet", {"product_id": ["1"], "title": ["x"]})
    there = write_parquet(tmp_path / "there" / "a.parquet", {"product_id": ["1"], "title": ["x"]})
    assert plan_catalog(here).fingerprint == plan_catalog(there).fingerprint


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("a.csv", b"product_id,title\n1,mug\n", b"product_id,title\n1,cup\n"),
        ("a.jsonl", b'{"product_id": 1, "title": "mug"}\n', b'{"product_id": 1, "title": "cup"}\n'),
    ],
)
def test_changed_file_gives_another_fingerprint(tmp_path: Path, name: str, before: bytes, after: bytes) -> None:
    (tmp_path / name).write_bytes(before)
    first = plan_catalog(str(tmp_path / name)).fingerprint
    (tmp_path / name).write_bytes(after)
    assert plan_catalog(str(tmp_path / name)).fingerprint != first


def test_parquet_value_that_moves_no_statistic_gives_another_fingerprint(tmp_path: Path) -> None:
    def fingerprint(middle: bytes) -> str:
        columns = {"product_id": ["1", "2", "3"], "image": [b"a" * 99, middle, b"z" * 99]}
        path = write_parquet(tmp_path / "a.parquet", columns, compression="none", use_dictionary=False)
        return plan_catalog(path).fingerprint

    assert fingerprint(b"m" * 99) != fingerprint(b"n" * 99)


def test_replaced_picture_gives_a_folder_another_fingerprint(tmp_path: Path, png: Maker) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(png((1, 1, 1), (8, 8)))
    first = plan_catalog(str(tmp_path)).fingerprint
    picture.write_bytes(png((1, 1, 1), (80, 80)))
    assert plan_catalog(str(tmp_path)).fingerprint != first


def test_changed_sidecar_gives_a_folder_another_fingerprint(tmp_path: Path, png: Maker) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.txt").write_text("mug")
    first = plan_catalog(str(tmp_path)).fingerprint
    (tmp_path / "a.txt").write_text("blue jug")
    assert plan_catalog(str(tmp_path)).fingerprint != first


def test_columns_and_part_size_belong_to_the_fingerprint(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"product_id": ["1"], "sku": ["2"], "title": ["x"], "name": ["y"]})
    plans = [
        plan_catalog(path),
        plan_catalog(path, rows_per_part=7),
        plan_catalog(path, columns=ColumnOptions(product_id="sku")),
        plan_catalog(path, columns=ColumnOptions(text="name")),
    ]
    assert len({plan.fingerprint for plan in plans}) == 4


@pytest.mark.parametrize(
    ("num_rows", "rows_per_part"),
    [(1, 64), (64, 64), (4096, 64), (4097, 128), (8192, 128), (65_536, 1024), (70_000, 1024)],
)
def test_small_catalog_is_cut_into_parts_for_many_encoders(tmp_path: Path, num_rows: int, rows_per_part: int) -> None:
    ids = [str(number) for number in range(num_rows)]
    pq.write_table(pa.table({"product_id": ids, "title": ids}), tmp_path / "a.parquet")
    assert plan_catalog(str(tmp_path / "a.parquet")).slices[0].num_rows == min(num_rows, rows_per_part)
    (tmp_path / "a.jsonl").write_text("".join(f'{{"product_id": "{each}", "title": "x"}}\n' for each in ids))
    assert plan_catalog(str(tmp_path / "a.jsonl")).slices[0].num_rows == min(num_rows, rows_per_part)
