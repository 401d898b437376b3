"""Divide both demo catalogues and every training picture into a training part and a held-out part.

    python -m tools.split --demo demo --training out/training

Pictures belong together when they share a group (one mesh, one duplicated drawing, one concept) or are twins by
`tools/duplicates.py`. What belongs together is held out together, so nothing that is held out has a twin in training.

Reads and rewrites (the column `split`): `household/catalog.parquet`, `household/queries.parquet` and
`marketplace/catalog.parquet` under --demo, and all Parquet files of --training.
Exit codes: 0 done, 2 wrong options, 1 anything else.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tools.duplicates import DRAWING_TOLERANCE, RENDER_TOLERANCE, Signatures, duplicate_pairs, signatures
from tools.groups import connected
from tools.training_set import write_table

Collection = Literal["household", "marketplace", "other"]

HELDOUT_PERCENT = 20
LARGE_COMPONENT = 8
"""Groups of products above which a component no longer follows any one member that is held out: it would always be."""
HOUSEHOLD_SOURCE = "household"
"""What the training pictures of the household shop say in their column `source`."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the split has to know of a picture."""

    group_id: str
    collection: Collection


@dataclass(frozen=True, slots=True)
class Assignment:
    """The split with what led to it."""

    split: dict[str, str]
    """"train" or "heldout" for each group."""
    component: dict[str, str]
    """The smallest group of the component that each group belongs to."""
    num_links: int
    """Pairs of groups that hold twins."""


def assign_split(records: Sequence[Record], pictures: Signatures) -> Assignment:
    """Assign each group to training or to the held-out part.

    A household family or marketplace group is held out provisionally by its own hash. A component with such a group is
    held out whole; a component of many product groups follows its smallest group alone. Components without products
    are for training. The result does not depend on the order of the records.

    Args:
        records: N pictures; a group that is in a catalogue must be so in all its records.
        pictures: their fingerprints, in the same order.

    Returns:
        One split per group.
    """
    names = sorted({record.group_id for record in records})
    number = {name: position for position, name in enumerate(names)}
    collection = {record.group_id: record.collection for record in records}
    links = group_links(np.array([number[record.group_id] for record in records]), records, pictures)
    component = connected(len(names), links)
    members: dict[int, list[str]] = {}
    for name, root in zip(names, component.tolist(), strict=True):
        members.setdefault(root, []).append(name)
    split_of_root = {root: component_split(groups, collection) for root, groups in members.items()}
    return Assignment(
        split={name: split_of_root[root] for name, root in zip(names, component.tolist(), strict=True)},
        component={name: names[root] for name, root in zip(names, component.tolist(), strict=True)},
        num_links=len(links),
    )


def group_links(groups: NDArray[np.int64], records: Sequence[Record], pictures: Signatures) -> NDArray[np.int64]:
    """Find the pairs of groups int64 [P, 2] that hold twins."""
    is_rendered = np.array([record.collection == "household" for record in records])
    tolerances = np.where(is_rendered, RENDER_TOLERANCE, DRAWING_TOLERANCE).astype(np.float32)
    twins = duplicate_pairs(pictures, tolerances=tolerances, groups=groups)
    return np.unique(np.sort(groups[twins], axis=1), axis=0).reshape(-1, 2)


def component_split(groups: Sequence[str], collection: dict[str, Collection]) -> str:
    """Split of the component made of these groups, in ascending order."""
    products = [group for group in groups if collection[group] != "other"]
    if len(products) > LARGE_COMPONENT:
        products = products[:1]
    is_held_out = any(is_provisionally_held_out(group, collection[group]) for group in products)
    return "heldout" if is_held_out else "train"


def is_provisionally_held_out(group_id: str, collection: Collection) -> bool:
    """Whether a product group's own hash holds it out; a seed that needs no list of the other groups."""
    digest = hashlib.sha256(f"{collection}:{group_id}".encode()).hexdigest()
    return int(digest, 16) % 100 < HELDOUT_PERCENT


@dataclass(frozen=True, slots=True)
class SplitFile:
    """A Parquet file whose column `split` follows from its groups."""

    path: Path
    records: list[Record]
    images: list[bytes]


def read_files(demo: Path, training: Path) -> list[SplitFile]:
    """Read groups and pictures of the catalogues, the query photos and the training set."""
    household = demo / "household"
    files = [
        read_file(household / "catalog.parquet", "household"),
        read_queries(household / "queries.parquet", household / "catalog.parquet"),
        read_file(demo / "marketplace" / "catalog.parquet", "marketplace"),
    ]
    offered = {record.group_id for record in files[-1].records}
    return files + [read_training(path, offered) for path in sorted(training.glob("*.parquet"))]


def read_file(path: Path, collection: Collection) -> SplitFile:
    """Read a catalogue all of whose groups belong to one collection."""
    columns = pq.read_table(path, columns=["group_id", "image"]).to_pydict()
    return SplitFile(path, [Record(group, collection) for group in columns["group_id"]], columns["image"])


def read_queries(path: Path, catalog: Path) -> SplitFile:
    """Read query photos; their groups are those of the products they show."""
    products = pq.read_table(catalog, columns=["product_id", "group_id"]).to_pydict()
    group_of = dict(zip(products["product_id"], products["group_id"], strict=True))
    columns = pq.read_table(path, columns=["product_id", "image"]).to_pydict()
    return SplitFile(path, [Record(group_of[id_], "household") for id_ in columns["product_id"]], columns["image"])


def read_training(path: Path, offered: set[str]) -> SplitFile:
    """Read a part of the training set; `offered` are the groups that the marketplace sells."""
    columns = pq.read_table(path, columns=["group_id", "source", "image"]).to_pydict()
    records = [
        Record(group, training_collection(group, source, offered))
        for group, source in zip(columns["group_id"], columns["source"], strict=True)
    ]
    return SplitFile(path, records, columns["image"])


def training_collection(group_id: str, source: str, offered: set[str]) -> Collection:
    """Say which catalogue a training picture's group belongs to, if to any."""
    if source == HOUSEHOLD_SOURCE:
        return "household"
    return "marketplace" if group_id in offered else "other"


def write_split(file: SplitFile, split: dict[str, str]) -> Counter[str]:
    """Replace a file by one with the split filled in and return how many rows each part has."""
    values = [split[record.group_id] for record in file.records]
    table = pq.read_table(file.path)
    position = table.schema.get_field_index("split")
    table = table.set_column(position, "split", pa.array(values, pa.string()))
    temporary = file.path.with_suffix(".tmp")
    write_table(table, temporary)
    temporary.replace(file.path)
    return Counter(values)


def report(files: Sequence[SplitFile], assignment: Assignment) -> None:
    """Print what belongs together and why training pictures are left out."""
    sizes = Counter(assignment.component.values())
    print(f"groups: {len(assignment.split)}, linked by twins: {assignment.num_links} pairs of groups")
    print(f"components: {len(sizes)}, of several groups: {sum(size > 1 for size in sizes.values())}")
    for name, size in sizes.most_common(5):
        print(f"  {size} groups around {name}: {assignment.split[name]}")
    others = [record for file in files for record in file.records if record.collection == "other"]
    num_dropped = sum(assignment.split[record.group_id] == "heldout" for record in others)
    print(f"training pictures of no catalogue left out for a twin in the held-out part: {num_dropped} of {len(others)}")
    shop = [record for file in files[3:] for record in file.records if record.collection != "other"]
    num_own = sum(is_provisionally_held_out(record.group_id, record.collection) for record in shop)
    num_left_out = sum(assignment.split[record.group_id] == "heldout" for record in shop)
    print(f"training pictures of the catalogues left out: {num_left_out} of {len(shop)}, {num_own} by their own group")


def main() -> None:
    """Read all pictures, assign the split, write it and print the counts."""
    options = parse_options()
    files = read_files(options.demo, options.training)
    records = [record for file in files for record in file.records]
    pictures = signatures(image for file in files for image in file.images)
    assignment = assign_split(records, pictures)
    report(files, assignment)
    for file in files:
        counts = write_split(file, assignment.split)
        print(f"{file.path}: {counts['train']} train, {counts['heldout']} heldout")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Divide the demo data into training and held-out part.")
    parser.add_argument("--demo", type=Path, required=True, help="folder with household/ and marketplace/")
    parser.add_argument("--training", type=Path, required=True, help="folder of the training set")
    return parser.parse_args()


if __name__ == "__main__":
    main()
