"""The committed household shop is what its documentation says: read from the files, nothing is drawn here."""

import html
import io
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tools import noise

FOLDER = Path(__file__).resolve().parents[2] / "demo" / "household"
LICENSES = {"CC0-1.0", "CC-BY-3.0", "CC-BY-3.0-US"}
MAX_BYTES = 11_500_000
NAME = pa.struct([("language", pa.string()), ("name", pa.string())])


@pytest.fixture(scope="module")
def catalog():
    return pq.read_table(FOLDER / "catalog.parquet")


@pytest.fixture(scope="module")
def products(catalog):
    return catalog.drop_columns(["image", "names"]).to_pylist()


@pytest.fixture(scope="module")
def queries():
    return pq.read_table(FOLDER / "queries.parquet")


def test_columns_and_their_types(catalog, queries):
    expected = dict.fromkeys(
        ["product_id", "title", "clean_title", "title_noise", "description", "category", "color"], pa.string()
    )
    expected |= dict.fromkeys(["width_cm", "depth_cm", "height_cm", "price_eur_made_up"], pa.float32())
    expected |= {"tags": pa.list_(pa.string()), "names": pa.list_(NAME), "ambiguous_by": pa.list_(pa.string())}
    expected |= dict.fromkeys(["group_id", "duplicate_of", "creator", "license", "source", "split"], pa.string())
    expected |= {"image": pa.binary()}
    assert {field.name: field.type for field in catalog.schema} == expected
    assert queries.schema.names == ["query_id", "product_id", "view", "split", "image"]


def test_size_of_the_shop(products, queries):
    assert 3_000 <= len(products) <= 5_000
    assert len({product["group_id"] for product in products}) > 650
    assert queries.num_rows == sum(product["duplicate_of"] is None for product in products)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MAX_BYTES


def test_ids_are_unique_and_queries_show_products(products, queries):
    ids = [product["product_id"] for product in products]
    assert len(set(ids)) == len(ids)
    assert all(product_id.startswith("hh-") for product_id in ids)
    assert set(queries["product_id"].to_pylist()) <= set(ids)
    assert len(set(queries["query_id"].to_pylist())) == queries.num_rows


def test_every_photo_is_a_square_webp_with_something_on_it(catalog, queries):
    for table in (catalog, queries):
        for name, image in zip(table["product_id"].to_pylist(), table["image"].to_pylist(), strict=True):
            photo = Image.open(io.BytesIO(image))
            assert (photo.format, photo.size) == ("WEBP", (128, 128)), name
            darkest, brightest = photo.convert("L").getextrema()
            assert brightest - darkest > 30, name


def test_no_query_is_a_photo_of_the_catalog(catalog, queries):
    assert not set(catalog["image"].to_pylist()) & set(queries["image"].to_pylist())


def test_a_family_is_wholly_held_out_or_wholly_for_training(products, queries):
    splits = defaultdict(set)
    for product in products:
        splits[product["group_id"]].add(product["split"])
    assert all(len(names) == 1 for names in splits.values())
    of_product = {product["product_id"]: product["split"] for product in products}
    for product_id, split in zip(queries["product_id"].to_pylist(), queries["split"].to_pylist(), strict=True):
        assert of_product[product_id] == split
    counts = Counter(of_product.values())
    assert set(counts) == {"train", "heldout"}
    assert 750 <= counts["heldout"] <= 900


def test_noise_is_labelled_as_it_is(catalog):
    for row in catalog.select(["title", "clean_title", "title_noise", "color", "names"]).to_pylist():
        title, clean, color = row["title"], row["clean_title"], row["color"]
        match row["title_noise"]:
            case "none":
                assert title == clean
            case "typo":
                assert title != clean
                assert abs(len(title) - len(clean)) <= 3
            case "no_color":
                assert f"{color} {title}".lower() == clean.lower()
            case "wrong_color":
                wrong = [word for word in noise.COLORS if title.lower().startswith(f"{word} ")]
                assert len(wrong) == 1
                assert wrong != [color]
                assert title[len(wrong[0]) :] == clean[len(color) :]
            case "capitals":
                assert title == clean.upper() != clean
            case "html":
                assert clean in html.unescape(title).replace("\xa0", " ")
                assert title.startswith("<")
            case "code":
                assert clean in title
                assert len(title) > len(clean) + 4
            case "truncated":
                assert clean.startswith(title)
                assert title != clean
            case "other_language":
                others = {name["name"].lower() for name in row["names"] if name["language"] != "en"}
                assert title.lower() in others
            case unknown:
                pytest.fail(f"noise {unknown!r} of {title!r} is not one that is documented")


def test_every_kind_of_noise_occurs_in_about_a_fifth_of_the_titles(products):
    counts = Counter(product["title_noise"] for product in products)
    assert set(counts) == {"none", *noise.KINDS}
    assert all(counts[kind] >= 40 for kind in noise.KINDS)
    assert 0.17 <= 1 - counts["none"] / len(products) <= 0.23


def test_clean_titles_begin_with_the_color(products):
    for product in products:
        if product["color"] is not None and product["duplicate_of"] is None:
            assert product["clean_title"].lower().startswith(f"{product['color']} ")


def test_second_listings_are_other_photos_of_the_same_product(catalog, products):
    by_id = {product["product_id"]: product for product in products}
    image_of = dict(zip(catalog["product_id"].to_pylist(), catalog["image"].to_pylist(), strict=True))
    seconds = [product for product in products if product["duplicate_of"] is not None]
    assert 0.015 <= len(seconds) / len(products) <= 0.025
    for second in seconds:
        first = by_id[second["duplicate_of"]]
        assert first["duplicate_of"] is None
        for same in ("group_id", "color", "width_cm", "depth_cm", "height_cm", "split", "price_eur_made_up"):
            assert first[same] == second[same]
        assert image_of[first["product_id"]] != image_of[second["product_id"]]


def test_ambiguity_by_size_and_color_is_what_the_other_products_say(products):
    sizes, colors = defaultdict(set), defaultdict(set)
    for product in products:
        size = (product["width_cm"], product["depth_cm"], product["height_cm"])
        sizes[product["group_id"], product["color"]].add(size)
        colors[product["group_id"], size].add(product["color"])
    for product in products:
        size = (product["width_cm"], product["depth_cm"], product["height_cm"])
        assert ("size" in product["ambiguous_by"]) == (len(sizes[product["group_id"], product["color"]]) > 1)
        assert ("color" in product["ambiguous_by"]) == (len(colors[product["group_id"], size]) > 1)
    counts = Counter(word for product in products for word in product["ambiguous_by"])
    assert min(counts["size"], counts["color"], counts["name"]) > 400


def test_sizes_of_one_product_can_be_told_apart_by_their_titles(products):
    titles = defaultdict(set)
    for product in products:
        if "size" in product["ambiguous_by"] and product["duplicate_of"] is None:
            assert product["clean_title"].endswith((" cm", " cm high"))
            key = (product["group_id"], product["clean_title"])
            assert product["product_id"] not in titles[key]
            assert not titles[key]
            titles[key].add(product["product_id"])


def test_attributes_are_plausible(catalog, products):
    for product in products:
        assert product["license"] in LICENSES
        assert product["creator"]
        assert product["category"] not in ("", "Characters", "Doors and windows", "Staircases")
        assert min(product["width_cm"], product["depth_cm"], product["height_cm"]) >= 1
        assert product["price_eur_made_up"] > 0
        assert product["color"] is None or product["color"] in noise.COLORS
        sizes = [f"{product[side]:.0f}" for side in ("width_cm", "depth_cm", "height_cm")]
        assert all(size in product["description"] for size in sizes)
    assert all(len(names) >= 15 for names in catalog["names"].to_pylist())


def test_every_mesh_is_attributed(products):
    page = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    lines = set(page.splitlines())
    for product in products:
        end = f"| {product['creator']} | {product['license']} | {product['group_id']} |"
        assert any(line.endswith(end) for line in lines)
