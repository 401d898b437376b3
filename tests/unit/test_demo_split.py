"""Nothing of the demo's held-out part has a twin in its training part, by recomputing every fingerprint."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from tools.duplicates import DRAWING_TOLERANCE, RENDER_TOLERANCE, Signatures, duplicate_pairs, signatures
from tools.split import Record, assign_split, is_provisionally_held_out

DEMO = Path(__file__).parents[2] / "demo"


@dataclass(frozen=True)
class DemoPictures:
    groups: list[str]
    splits: list[str]
    tolerances: list[float]
    pictures: Signatures


def columns(name: str, *wanted: str) -> list[list]:
    table = pq.read_table(DEMO / name, columns=list(wanted))
    return [table[column].to_pylist() for column in wanted]


@pytest.fixture(scope="module")
def demo() -> DemoPictures:
    ids, groups, splits, images = columns("household/catalog.parquet", "product_id", "group_id", "split", "image")
    shown, query_splits, photos = columns("household/queries.parquet", "product_id", "split", "image")
    group_of = dict(zip(ids, groups, strict=True))
    market_groups, market_splits, drawings = columns("marketplace/catalog.parquet", "group_id", "split", "image")
    return DemoPictures(
        groups=groups + [group_of[product_id] for product_id in shown] + market_groups,
        splits=splits + query_splits + market_splits,
        tolerances=[RENDER_TOLERANCE] * len(images + photos) + [DRAWING_TOLERANCE] * len(drawings),
        pictures=signatures(images + photos + drawings),
    )


def crossing(demo: DemoPictures, *, pictures: Signatures | None = None, extra_splits: Sequence[str] = ()) -> list:
    """Pairs of twins with one picture on each side of the split."""
    splits = np.array([*demo.splits, *extra_splits])
    tolerances = np.array([*demo.tolerances, *[DRAWING_TOLERANCE] * len(extra_splits)], dtype=np.float32)
    twins = duplicate_pairs(pictures or demo.pictures, tolerances=tolerances)
    return twins[splits[twins[:, 0]] != splits[twins[:, 1]]].tolist()


def joined(first: Signatures, second: Signatures) -> Signatures:
    return Signatures(
        codes=np.concatenate([first.codes, second.codes]),
        thumbnails=np.concatenate([first.thumbnails, second.thumbnails]),
        blank=np.concatenate([first.blank, second.blank]),
    )


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def drawing(kind: str, color: str, side: int = 64) -> bytes:
    picture = Image.new("RGB", (side, side), "white")
    box = (side // 8, side // 4, side - side // 8, side - side // 4)
    draw = ImageDraw.Draw(picture)
    {"box": draw.rectangle, "ball": draw.ellipse, "nothing": lambda *_, **__: None}[kind](box, fill=color)
    return png(picture)


def test_no_group_is_on_both_sides(demo: DemoPictures):
    sides = Counter(group for group, _ in set(zip(demo.groups, demo.splits, strict=True)))
    assert set(demo.splits) == {"train", "heldout"}
    assert [group for group, num_sides in sides.items() if num_sides > 1] == []


def test_nothing_held_out_has_a_twin_in_training(demo: DemoPictures):
    assert crossing(demo) == []


def test_the_twin_test_can_fail_a_planted_copy_is_found(demo: DemoPictures):
    [drawings] = columns("marketplace/catalog.parquet", "image")
    first_drawing = len(demo.groups) - len(drawings)
    position = next(
        row
        for row in range(first_drawing, len(demo.groups))
        if demo.splits[row] == "heldout" and not demo.pictures.blank[row]
    )
    original = Image.open(io.BytesIO(drawings[position - first_drawing])).convert("RGB")
    with_margin = Image.new("RGB", (original.width + 40, original.height + 20), "white")
    with_margin.paste(original, (30, 5))
    buffer = io.BytesIO()
    with_margin.resize((140, 120)).save(buffer, format="JPEG", quality=85)
    planted = joined(demo.pictures, signatures([buffer.getvalue()]))
    assert [position, len(demo.groups)] in crossing(demo, pictures=planted, extra_splits=["train"])


def test_about_a_fifth_is_held_out():
    [household] = columns("household/catalog.parquet", "split")
    [marketplace] = columns("marketplace/catalog.parquet", "split")
    assert 750 <= household.count("heldout") <= 900
    assert 330 <= marketplace.count("heldout") <= 470


def test_the_readme_counts_what_is_there():
    readme = (DEMO / "README.md").read_text(encoding="utf-8")
    groups, splits = columns("household/catalog.parquet", "group_id", "split")
    held_out = [group for group, split in zip(groups, splits, strict=True) if split == "heldout"]
    assert f"{len(groups):,} in {len(set(groups))} families" in readme
    assert f"{len(held_out)} products in {len(set(held_out))} families" in readme


def test_a_photo_is_on_the_side_of_its_product():
    ids, splits = columns("household/catalog.parquet", "product_id", "split")
    shown, photo_splits = columns("household/queries.parquet", "product_id", "split")
    split_of = dict(zip(ids, splits, strict=True))
    assert photo_splits == [split_of[product_id] for product_id in shown]


def test_a_training_picture_follows_its_held_out_twin_and_takes_its_group_along():
    records = [
        Record("mkg-held", "marketplace"),
        Record("icon:ball", "other"),
        Record("icon:ball", "other"),
        Record("icon:box", "other"),
    ]
    assert not is_provisionally_held_out("mkg-held", "marketplace")
    held = next(f"mkg-{number}" for number in range(100) if is_provisionally_held_out(f"mkg-{number}", "marketplace"))
    records[0] = Record(held, "marketplace")
    pictures = signatures(
        [drawing("ball", "red"), drawing("ball", "red", side=80), drawing("box", "green"), drawing("box", "blue")]
    )
    assert assign_split(records, pictures).split == {held: "heldout", "icon:ball": "heldout", "icon:box": "train"}


def test_the_split_does_not_depend_on_the_order_of_pictures():
    records = [Record(f"mkg-{number}", "marketplace") for number in range(12)]
    images = [drawing(kind, color) for kind in ("box", "ball") for color in ("red", "navy", "teal")] * 2
    forward = assign_split(records, signatures(images))
    backward = assign_split(records[::-1], signatures(images[::-1]))
    assert forward.split == backward.split
    assert forward.num_links == 6
    assert set(forward.split.values()) == {"train", "heldout"}


def test_a_long_chain_of_look_alikes_follows_its_smallest_group_alone():
    records = [Record(f"mkg-{number:02d}", "marketplace") for number in range(20)]
    assert not is_provisionally_held_out("mkg-00", "marketplace")
    assert any(is_provisionally_held_out(record.group_id, "marketplace") for record in records)
    assignment = assign_split(records, signatures([drawing("ball", "red")] * 20))
    assert set(assignment.component.values()) == {"mkg-00"}
    assert set(assignment.split.values()) == {"train"}


def test_blank_pictures_are_nobodys_twins():
    pictures = signatures([drawing("nothing", "white")] * 3)
    assert pictures.blank.tolist() == [True, True, True]
    assert duplicate_pairs(pictures, tolerances=np.full(3, 0.15, dtype=np.float32)).tolist() == []


def test_one_shape_in_another_color_or_another_shape_is_no_twin():
    pictures = signatures([drawing("ball", "red"), drawing("ball", "blue"), drawing("box", "red")])
    assert duplicate_pairs(pictures, tolerances=np.full(3, 0.15, dtype=np.float32)).tolist() == []


def test_no_pictures_have_no_twins():
    assert duplicate_pairs(signatures([]), tolerances=np.empty(0, dtype=np.float32)).tolist() == []
