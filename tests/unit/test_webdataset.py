"""WebDataset tars: samples grouped by key, cut into parts by bytes, and archives that are hostile or cut off."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from product_retrieval.catalog import CatalogPlan, ColumnOptions, plan_catalog, read_slice
from product_retrieval.catalog.contained import MAX_IMAGE_BYTES
from product_retrieval.catalog.slices import IMAGE, SOURCE
from product_retrieval.catalog.tar_members import iterate_members
from product_retrieval.catalog.tar_samples import MAX_TEXT_BYTES
from product_retrieval.errors import CatalogError
from product_retrieval.pictures import load_picture

Maker = Callable[..., bytes]
Entry = tuple[str | tarfile.TarInfo, bytes | str]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def tar_bytes(entries: Sequence[Entry], mode: str = "w", tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tar_format) as archive:  # type: ignore[call-overload]
        for name, content in entries:
            data = content if isinstance(content, bytes) else content.encode()
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if member.isreg():
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, entries: Sequence[Entry], mode: str = "w") -> str:
    path.write_bytes(tar_bytes(entries, mode))
    return str(path)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def products_of(plan: CatalogPlan) -> list[dict[str, Any]]:
    return [row for slice_ in plan.slices for row in read_slice(plan, slice_).table.to_pylist()]


def rejected(plan: CatalogPlan) -> list[tuple[str | None, str]]:
    return [(r.product_id, r.reason) for slice_ in plan.slices for r in read_slice(plan, slice_).rejections]


def ids_of(plan: CatalogPlan) -> list[str]:
    return [row["product_id"] for row in products_of(plan)]


# Samples and parts


@pytest.mark.parametrize("name", ["shop.tar", "shop.tar.gz", "shop.tgz"])
@pytest.mark.parametrize("rows_per_part", [1, 3, 100])
def test_parts_of_any_size_give_the_same_products(tmp_path: Path, png: Maker, name: str, rows_per_part: int) -> None:
    entries: list[Entry] = []
    for i in range(7):
        entries += [(f"{i}.png", png((i, 0, 0))), (f"{i}.txt", f" mug {i}\n"), (f"{i}.json", json.dumps({"price": i}))]
    plan = plan_catalog(
        write_tar(tmp_path / name, entries, "w" if name == "shop.tar" else "w:gz"), rows_per_part=rows_per_part
    )
    rows = products_of(plan)
    assert plan.kind == "webdataset"
    assert [(row["product_id"], row["text"], row["price"]) for row in rows] == [
        (f"{i}", f"mug {i}", i) for i in range(7)
    ]
    assert [row[IMAGE] for row in rows] == [png((i, 0, 0)) for i in range(7)]
    assert [row[SOURCE] for row in rows] == [f"{name}:{i}" for i in range(7)]
    assert [load_picture(plan.image_root, row["image_ref"]) for row in rows] == [row[IMAGE] for row in rows]
    assert [slice_.num_rows for slice_ in plan.slices][:-1] == [rows_per_part] * (len(plan.slices) - 1)
    assert plan == plan_catalog(plan.uri, rows_per_part=rows_per_part)


@pytest.mark.parametrize("tar_format", FORMATS)
def test_names_of_any_length_and_script_are_keys(tmp_path: Path, png: Maker, tar_format: str) -> None:
    names = ["a", "d" * 40 + "/" + "f" * 80, "a b/tüte"]
    if tar_format != "ustar":  # whose names are short
        names += ["long/" * 60 + "x", "杯" * 90]
    entries: list[Entry] = [
        (f"{name}.{end}", png() if end == "png" else name) for name in names for end in ("png", "txt")
    ]
    (tmp_path / "a.tar").write_bytes(tar_bytes(entries, tar_format=FORMATS[tar_format]))
    rows = products_of(plan_catalog(str(tmp_path / "a.tar"), rows_per_part=1))
    assert [(row["product_id"], row["text"], row[IMAGE]) for row in rows] == [(name, name, png()) for name in names]


def test_key_ends_at_the_first_dot_of_the_last_component(tmp_path: Path) -> None:
    entries = [("./a.b/c.seg.txt", "x"), ("a.b/c.title.txt", "mug"), ("v1.0/d.txt", "cup"), ("E.TXT", "jug")]
    rows = products_of(plan_catalog(write_tar(tmp_path / "a.tar", entries)))
    assert [(row["product_id"], row["seg"], row["title"], row["text"]) for row in rows] == [
        ("a.b/c", "x", "mug", None),
        ("v1.0/d", None, None, "cup"),
        ("E", None, None, "jug"),
    ]


def test_folder_of_tars_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "b.tar", [("3.txt", "c")])
    write_tar(tmp_path / "a.tar", [("1.txt", "a"), ("2.txt", "b")])
    plan = plan_catalog(str(tmp_path), rows_per_part=10)
    assert ids_of(plan) == ["1", "2", "3"]
    assert [slice_.num_rows for slice_ in plan.slices] == [2, 1]


def test_tar_beside_pictures_asks_which(tmp_path: Path, png: Maker) -> None:
    write_tar(tmp_path / "a.tar", [("1.txt", "a")])
    (tmp_path / "b.png").write_bytes(png())
    with pytest.raises(CatalogError, match="holds webdataset and folder files; name one kind with --kind"):
        plan_catalog(str(tmp_path))
    assert ids_of(plan_catalog(str(tmp_path), kind="folder")) == ["b.png"]


def test_archives_that_were_joined_are_read_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes([("1.txt", "a")]) + tar_bytes([("2.txt", "b")]))
    assert ids_of(plan_catalog(str(tmp_path / "a.tar"))) == ["1", "2"]


# Columns


def test_id_is_the_one_in_json_else_the_key(tmp_path: Path) -> None:
    entries = [
        ("a.json", '{"product_id": 7}'),
        ("a.txt", "x"),
        ("b.txt", "y"),
        ("c.json", '{"product_id": "p9"}'),
        ("c.txt", "z"),
    ]
    assert ids_of(plan_catalog(write_tar(tmp_path / "a.tar", entries))) == ["7", "b", "p9"]


def test_id_column_can_be_named_and_must_be_there(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.json", '{"sku": "s1"}'), ("a.txt", "x")])
    assert ids_of(plan_catalog(path, columns=ColumnOptions(product_id="sku"))) == ["s1"]
    with pytest.raises(CatalogError, match=r"no JSON has 'ean' for --columns.product-id"):
        plan_catalog(path, columns=ColumnOptions(product_id="ean"))


@pytest.mark.parametrize("rows_per_part", [1, 100])
def test_types_are_common_to_the_catalogue(tmp_path: Path, rows_per_part: int) -> None:
    values = [{"stock": 1, "size": 5, "price": 1}, {"stock": None, "size": "XL", "price": 2.5}, {"tags": ["x"]}]
    entries: list[Entry] = []
    for i, value in enumerate(values):
        entries += [(f"{i}.txt", "x"), (f"{i}.json", json.dumps(value)), (f"{i}.cls", f"{i}")]
    plan = plan_catalog(write_tar(tmp_path / "a.tar", entries), rows_per_part=rows_per_part)
    rows = products_of(plan)
    assert plan.schema.field("stock").type == pa.int64()
    assert [row["size"] for row in rows] == ["5", "XL", None]
    assert [row["price"] for row in rows] == [1.0, 2.5, None]
    assert [row["tags"] for row in rows] == [None, None, ["x"]]
    assert [row["cls"] for row in rows] == [0, 1, 2]


def test_class_that_is_no_plain_number_stays_as_written(tmp_path: Path) -> None:
    entries = [("a.txt", "x"), ("a.cls", "007"), ("b.txt", "y"), ("b.cls", "7")]
    assert [row["cls"] for row in products_of(plan_catalog(write_tar(tmp_path / "a.tar", entries)))] == ["007", "7"]


def test_text_is_a_template_over_the_json(tmp_path: Path, png: Maker) -> None:
    entries = [("a.png", png()), ("a.json", '{"brand": "Acme", "title": "mug"}')]
    path = write_tar(tmp_path / "a.tar", entries)
    assert products_of(plan_catalog(path))[0]["text"] == "mug"
    assert products_of(plan_catalog(path, columns=ColumnOptions(text="{brand} {title}")))[0]["text"] == "Acme mug"


def test_picture_is_the_member_not_what_the_json_says(tmp_path: Path, png: Maker) -> None:
    entries = [("a.json", '{"image": "/etc/passwd", "title": "mug"}'), ("a.png", png())]
    assert products_of(plan_catalog(write_tar(tmp_path / "a.tar", entries)))[0][IMAGE] == png()


def test_first_of_two_pictures_is_the_plainest_then_in_the_order_of_formats(tmp_path: Path, png: Maker) -> None:
    jpg, mask, webp = png((1, 1, 1)), png((2, 2, 2)), png((3, 3, 3))
    entries = [
        ("a.mask.jpg", mask),
        ("a.webp", webp),
        ("a.jpg", jpg),
        ("b.webp", webp),
        ("b.mask.jpg", mask),
        ("c.mask.jpg", mask),
    ]
    assert [row[IMAGE] for row in products_of(plan_catalog(write_tar(tmp_path / "a.tar", entries)))] == [
        jpg,
        webp,
        mask,
    ]


# Samples that are no products


def test_sample_without_picture_and_text_is_left_to_the_encoder_to_reject(tmp_path: Path, png: Maker) -> None:
    entries = [("a.json", '{"price": 1}'), ("b.npy", b"\x93NUMPY"), ("c.png", png())]
    rows = products_of(plan_catalog(write_tar(tmp_path / "a.tar", entries)))
    assert [(row["product_id"], row[IMAGE], row["text"]) for row in rows] == [
        ("a", None, None),
        ("b", None, None),
        ("c", png(), None),
    ]


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
@pytest.mark.parametrize("broken", ['{"price": ', "[1, 2]", "5", "", "[" * 100_000])
def test_broken_json_is_rejected_not_fatal(tmp_path: Path, rows_per_part: int, broken: str) -> None:
    entries = [("a.txt", "x"), ("a.json", "{}"), ("b.json", broken), ("b.txt", "y"), ("c.txt", "z")]
    plan = plan_catalog(write_tar(tmp_path / "a.tar", entries), rows_per_part=rows_per_part)
    assert plan.num_products == 3
    assert ids_of(plan) == ["a", "c"]
    assert rejected(plan) == [(None, "malformed_record")]


def test_rejection_of_broken_json_names_its_member(tmp_path: Path) -> None:
    plan = plan_catalog(write_tar(tmp_path / "a.tar", [("x/b.meta.json", "{"), ("c.txt", "z")]))
    (rejection,) = read_slice(plan, plan.slices[0]).rejections
    assert rejection.detail.startswith("x/b.meta.json: not JSON (")


def test_repeated_keys_keep_the_first(tmp_path: Path) -> None:
    entries = [("a.txt", "1"), ("a.txt", "2"), ("b.txt", "3"), ("a.txt", "4")]
    plan = plan_catalog(write_tar(tmp_path / "a.tar", entries), rows_per_part=2)
    assert [(row["product_id"], row["text"]) for row in products_of(plan)] == [("a", "1"), ("b", "3")]
    assert rejected(plan) == [("a", "repeated_id")] * 2


def test_scattered_members_of_a_sample_are_refused_once_and_clearly(tmp_path: Path, png: Maker) -> None:
    entries = [("a.png", png()), ("b.png", png()), ("a.txt", "x"), ("b.txt", "y")]
    with pytest.raises(
        CatalogError, match=r"a\.tar: the members of a sample are not next to one another .*--sort=name"
    ):
        plan_catalog(write_tar(tmp_path / "a.tar", entries))


def test_huge_picture_costs_only_itself(tmp_path: Path, png: Maker) -> None:
    entries = [("a.png", bytes(MAX_IMAGE_BYTES + 1)), ("b.png", png())]
    plan = plan_catalog(write_tar(tmp_path / "a.tar", entries))
    assert ids_of(plan) == ["b"]
    assert rejected(plan) == [("a", "image_too_large")]


def test_huge_text_is_rejected_unread(tmp_path: Path) -> None:
    plan = plan_catalog(write_tar(tmp_path / "a.tar", [("a.txt", bytes(MAX_TEXT_BYTES + 1)), ("b.txt", "x")]))
    assert ids_of(plan) == ["b"]
    assert rejected(plan) == [(None, "malformed_record")]


def test_empty_picture_is_told_from_none(tmp_path: Path) -> None:
    rows = products_of(plan_catalog(write_tar(tmp_path / "a.tar", [("a.png", b""), ("b.txt", "x")])))
    assert [row[IMAGE] for row in rows] == [b"", None]


# Hostile archives


@pytest.mark.parametrize("name", ["/etc/passwd", "../../x", "a/../../b", "/abs/y", "C:\\x"])
def test_name_that_leads_astray_is_only_a_key(tmp_path: Path, png: Maker, name: str) -> None:
    plan = plan_catalog(write_tar(tmp_path / "a.tar", [(f"{name}.png", png()), (f"{name}.txt", "x")]))
    (row,) = products_of(plan)
    assert (row["product_id"], row[IMAGE], row["image_ref"]) == (name, png(), "a.tar#byte=0")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_devices_and_folders_are_passed_over(tmp_path: Path, png: Maker, kind: bytes) -> None:
    entries = [
        (special("a.png", kind, "/etc/passwd"), b""),
        ("b.png", png()),
        (special("b.txt", kind, "/etc/passwd"), b""),
    ]
    rows = products_of(plan_catalog(write_tar(tmp_path / "a.tar", entries)))
    assert [(row["product_id"], row["text"]) for row in rows] == [("b", None)]


def test_hidden_and_nameless_members_are_passed_over(tmp_path: Path) -> None:
    entries = [("._a.txt", "x"), ("__MACOSX/._a.txt", "x"), (".txt", "x"), ("README", "x"), ("a.txt", "mug")]
    assert ids_of(plan_catalog(write_tar(tmp_path / "a.tar", entries))) == ["a"]


@pytest.mark.parametrize("entries", [[], [("README", "x")], [(special("a.png", tarfile.SYMTYPE, "b"), b"")]])
def test_archive_without_samples_is_refused(tmp_path: Path, entries: list[Entry]) -> None:
    with pytest.raises(CatalogError, match=r"a\.tar: holds no samples such as 0001\.jpg"):
        plan_catalog(write_tar(tmp_path / "a.tar", entries))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("cut", [0.3, 0.5, 0.7, 0.95])
def test_cut_off_archive_is_refused(tmp_path: Path, mode: str, cut: float) -> None:
    picture = random.Random(0).randbytes(5000)
    data = tar_bytes([(f"{i}.{end}", picture) for i in range(9) for end in ("png", "txt")], mode)
    content = data.rstrip(b"\0")
    (tmp_path / "a.tar").write_bytes(data[: int(len(content) * cut)])
    with pytest.raises(CatalogError, match=r"a\.tar: not a readable tar: (cut off at byte|the compressed file ends)"):
        plan_catalog(str(tmp_path / "a.tar"), kind="webdataset")


def test_archive_that_ends_between_two_members_is_refused(tmp_path: Path) -> None:
    data = tar_bytes([("a.txt", "x"), ("b.txt", "y")])
    (tmp_path / "a.tar").write_bytes(data[:1024])
    with pytest.raises(CatalogError, match="the two empty blocks that end a tar are missing"):
        plan_catalog(str(tmp_path / "a.tar"))


@pytest.mark.parametrize("at", [2, 130, 150])
def test_damaged_header_is_refused(tmp_path: Path, at: int) -> None:
    data = bytearray(tar_bytes([("a.txt", "x"), ("b.txt", "y")]))
    data[1024 + at] ^= 0x55
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(CatalogError, match="byte 1024 holds no tar header"):
        plan_catalog(str(tmp_path / "a.tar"))


def test_header_with_a_negative_size_does_not_loop(tmp_path: Path) -> None:
    data = bytearray(tar_bytes([("a.txt", "x"), ("b.txt", "y")]))
    data[1024 + 124 : 1024 + 136] = b"\xff" * 10 + b"\xfe\x00"
    data[1024 + 148 : 1024 + 156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(data[1024:1536])
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(CatalogError, match="negative size"):
        plan_catalog(str(tmp_path / "a.tar"))


def test_endless_chain_of_long_names_is_refused(tmp_path: Path) -> None:
    link = special("x", tarfile.GNUTYPE_LONGNAME)
    block = link.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes(block * 5_000)
    with pytest.raises(CatalogError, match="cut off at byte"):
        plan_catalog(str(tmp_path / "a.tar"))


def test_name_of_a_gigabyte_is_refused_unread(tmp_path: Path) -> None:
    link = special("x", tarfile.GNUTYPE_LONGNAME)
    link.size = 1 << 30
    (tmp_path / "a.tar").write_bytes(link.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(CatalogError, match="holds a name of 1073741824 bytes"):
        plan_catalog(str(tmp_path / "a.tar"))


def test_archive_that_changed_after_planning_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{i}.txt", "x") for i in range(4)])
    plan = plan_catalog(path, rows_per_part=2)
    write_tar(tmp_path / "a.tar", [(f"{i}.txt", "x" * 600) for i in range(4)])
    with pytest.raises(CatalogError, match=r"changed while it was read|not a readable tar"):
        read_slice(plan, plan.slices[1])


@pytest.mark.parametrize(("before", "after"), [("mug", "cup"), ("mug", "mugs")])
def test_changed_archive_gives_another_fingerprint(tmp_path: Path, before: str, after: str) -> None:
    plans = [plan_catalog(write_tar(tmp_path / "a.tar", [("1.txt", text)])) for text in (before, after)]
    assert plans[0].fingerprint != plans[1].fingerprint


@pytest.mark.parametrize(
    "reference",
    ["a.tar#byte=1", "a.tar#byte=99999", "a.tar#byte=", "a.tar#byte=-1", "../a.tar#byte=0", "gone.tar#byte=0"],
)
def test_picture_that_is_not_there_is_none(tmp_path: Path, png: Maker, reference: str) -> None:
    (tmp_path / "root").mkdir()
    write_tar(tmp_path / "a.tar", [("1.png", png())])
    write_tar(tmp_path / "root" / "a.tar", [("1.png", png())])
    assert load_picture(str(tmp_path / "root"), "a.tar#byte=0") == png()
    assert load_picture(str(tmp_path / "root"), reference) is None


@pytest.mark.parametrize("tar_format", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_members_are_those_that_tarfile_finds(tar_format: str, seed: int) -> None:
    rng = random.Random(seed)
    entries: list[Entry] = []
    for i in range(40):
        name = (
            "/".join("n" * rng.randint(1, 60) for _ in range(rng.randint(1, 3 if tar_format != "ustar" else 1)))
            + f"{i}.txt"
        )
        kind = rng.choice([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE])
        target = "t" * rng.randint(1, 200 if tar_format != "ustar" else 90)
        is_file = kind == tarfile.REGTYPE
        entries.append(
            (
                name if is_file else special(name, kind, target),
                rng.randbytes(rng.choice([0, 1, 511, 512, 513, 5000])) if is_file else b"",
            )
        )
    data = tar_bytes(entries, tar_format=FORMATS[tar_format])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(m.name, m.offset, m.offset_data, m.size) for m in archive if m.isreg()]
    found = [(m.name, m.start, m.data, m.size_bytes) for m in iterate_members(io.BytesIO(data), 0, None)]
    assert found == expected
