"""A product catalogue: found, planned into parts, and read part by part."""

from product_retrieval.catalog.fetch_options import FetchOptions
from product_retrieval.catalog.plan import plan_catalog
from product_retrieval.catalog.products import SlicedProducts, read_slice
from product_retrieval.catalog.rejections import REJECTION_SCHEMA
from product_retrieval.catalog.slices import CatalogPlan, ColumnOptions, Slice

__all__ = [
    "REJECTION_SCHEMA",
    "CatalogPlan",
    "ColumnOptions",
    "FetchOptions",
    "Slice",
    "SlicedProducts",
    "plan_catalog",
    "read_slice",
]
