"""The marketplace catalogue: its columns, its pictures, its licence, and the disorder it is there for."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tools.duplicates import DRAWING_TOLERANCE, duplicate_pairs, signatures
from tools.marketplace import SCHEMA, clean, is_product
from tools.openclipart import read_clipart

README = Path(__file__).parents[2] / "demo" / "README.md"
CATALOG = Path(__file__).parents[2] / "demo" / "marketplace" / "catalog.parquet"

SVG = """<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <metadata><rdf:RDF xmlns:cc="http://web.resource.org/cc/" xmlns:dc="http://purl.org/dc/elements/1.1/">
    <cc:Work rdf:about="">
      <dc:title>Gelato all&amp;#39;italiana</dc:title>
      <dc:subject><rdf:Bag><rdf:li>hash</rdf:li><rdf:li>dessert</rdf:li></rdf:Bag></dc:subject>
      <dc:creator><cc:Agent><dc:title>Architetto  Francesco</dc:title></cc:Agent></dc:creator>
      <cc:license rdf:resource="LICENSE"/>
    </cc:Work>
  </rdf:RDF></metadata>
</svg>
"""


@pytest.fixture(scope="module")
def catalog() -> pa.Table:
    return pq.read_table(CATALOG)


def test_columns_are_those_of_the_contract(catalog: pa.Table):
    assert catalog.schema.equals(SCHEMA)
    assert [name for name in catalog.schema.names if name != "tags" and catalog[name].null_count] == []


def test_about_two_thousand_products_with_ids_of_their_own_in_a_small_file(catalog: pa.Table):
    assert 1_900 <= catalog.num_rows <= 2_000
    assert len(set(catalog["product_id"].to_pylist())) == catalog.num_rows
    assert all(product_id.startswith("mk-") for product_id in catalog["product_id"].to_pylist())
    assert CATALOG.stat().st_size <= 3_200_000


def test_every_picture_opens_and_is_square(catalog: pa.Table):
    kinds = Counter()
    for image in catalog["image"].to_pylist():
        picture = Image.open(io.BytesIO(image))
        picture.load()
        kinds[picture.format, picture.mode, picture.size] += 1
    assert kinds == {("WEBP", "RGB", (112, 112)): catalog.num_rows}


def test_every_drawing_is_dedicated_to_the_public_domain_and_names_its_file(catalog: pa.Table):
    assert set(catalog["license"].to_pylist()) == {"Public Domain"}
    sources = catalog["source"].to_pylist()
    assert len(set(sources)) == catalog.num_rows
    assert all(source.startswith("openclipart-0.18:") and source.endswith(".svg") for source in sources)


def test_titles_are_as_messy_as_their_authors_left_them(catalog: pa.Table):
    titles = catalog["title"].to_pylist()
    assert all(title.strip() for title in titles)
    assert {"L&Atilde;&copy;zard", "Gelato all&#39;italiana", "Macchina caffe"} <= set(titles)
    assert Counter(titles)["Clipart by Nicu Buculei - book_01"] > 10


def test_the_same_picture_is_listed_more_than_once(catalog: pa.Table):
    copies = Counter(hashlib.sha256(image).hexdigest() for image in catalog["image"].to_pylist())
    num_second_listings = sum(count - 1 for count in copies.values())
    groups = set(catalog["group_id"].to_pylist())
    assert num_second_listings >= 200
    assert len(groups) <= catalog.num_rows - num_second_listings


def test_groups_are_the_pictures_that_are_twins(catalog: pa.Table):
    groups = np.array(catalog["group_id"].to_pylist())
    tolerances = np.full(len(groups), DRAWING_TOLERANCE, dtype=np.float32)
    twins = duplicate_pairs(signatures(catalog["image"].to_pylist()), tolerances=tolerances)
    assert (groups[twins[:, 0]] == groups[twins[:, 1]]).all()
    assert set(groups[twins].ravel()) == {group for group, count in Counter(groups.tolist()).items() if count > 1}


def test_the_readme_counts_what_is_there(catalog: pa.Table):
    readme = README.read_text(encoding="utf-8")
    rows = catalog.select(["group_id", "split", "description", "title"]).to_pylist()
    held_out = [row for row in rows if row["split"] == "heldout"]
    sizes = Counter(row["group_id"] for row in rows)
    titles = Counter(row["title"] for row in rows)
    copies = Counter(catalog["image"].to_pylist())
    assert f"{len(rows):,} with {len(sizes):,} different pictures" in readme
    assert f"{len(held_out)} products in {len({row['group_id'] for row in held_out})} groups" in readme
    assert f"empty in {sum(not row['description'].strip() for row in rows):,} rows" in readme
    assert f"{sum(count - 1 for count in copies.values())} rows repeat the picture" in readme
    assert f"{sum(size for size in sizes.values() if size > 1)} products share their picture" in readme
    assert f"and {sum(count for count in titles.values() if count > 6)} have" in readme


def test_words_of_an_svg_file_are_read_as_they_stand(tmp_path: Path):
    svg = tmp_path / "gelato_architetto_franc_01.svg"
    svg.write_text(SVG.replace("LICENSE", "http://web.resource.org/cc/PublicDomain"), encoding="utf-8")
    clipart = read_clipart(svg, "food/desserts/gelato_architetto_franc_01.svg", tmp_path / "none.png")
    assert clipart.title == "Gelato all&#39;italiana"
    assert clipart.keywords == ["hash", "dessert"]
    assert clipart.creator == "Architetto Francesco"
    assert (clipart.folder, clipart.file_name) == ("food/desserts", "gelato_architetto_franc_01")
    assert clipart.description == ""
    assert clipart.is_public_domain
    assert is_product(clipart)


@pytest.mark.parametrize("license_", ["http://creativecommons.org/licenses/GPL/2.0/", ""])
def test_a_drawing_without_the_dedication_is_not_public_domain(tmp_path: Path, license_: str):
    svg = tmp_path / "bus.svg"
    svg.write_text(SVG.replace("LICENSE", license_), encoding="utf-8")
    assert not read_clipart(svg, "transportation/bus.svg", tmp_path / "bus.png").is_public_domain


@pytest.mark.parametrize(
    ("name", "creator", "cleaned"),
    [
        ("pear_nicu_buculei_01", "Nicu Buculei", "pear"),
        ("zebra_architetto_franc_01", "Architetto Francesco Rollandin", "zebra"),
        ("Coffee (B and W)", "Gerald G.", "coffee black and white"),
        ("Clipart by Nicu Buculei", "Nicu Buculei", ""),
    ],
)
def test_names_for_training_lose_authors_and_numbers(name: str, creator: str, cleaned: str):
    assert clean(name, creator) == cleaned
