"""Small pictures of products for a page that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

from PIL import Image

from product_retrieval.images import decode
from product_retrieval.index import IndexManifest, ProductIndex
from product_retrieval.pictures import load_picture

SIDE_PX = 112
QUALITY = 72


def thumbnails(index: ProductIndex, manifest: IndexManifest, product_ids: Iterable[str]) -> dict[str, str]:
    """Return pictures as data URIs by product_id; products without one that can be read are left out.

    They are decoded and encoded again, so that nothing but pixels of untrusted bytes reaches the page.
    """
    if "image_ref" not in index.column_names:
        return {}
    catalog = manifest.catalog
    found = {}
    for product_id in dict.fromkeys(product_ids):
        row = index.row_of(product_id)
        if row is None:
            continue
        (product,) = index.describe([row], ["image_ref"])
        data = load_picture(
            catalog["image_root"],
            product["image_ref"],
            image_column=catalog["image_column"],
            catalog_root=catalog.get("root"),
        )
        pixels = decode(data).pixels if data else None
        if pixels is not None:
            picture = Image.fromarray(pixels)
            picture.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            picture.save(buffer, format="WEBP", quality=QUALITY)
            found[product_id] = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return found
