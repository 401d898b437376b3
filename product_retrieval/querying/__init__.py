"""Asking an index: filters on attributes, fused and collapsed hits, and the query that names them all."""

from product_retrieval.querying.answer import Answer, Found
from product_retrieval.querying.filters import Filter, parse_filter, parse_filter_text
from product_retrieval.querying.product_search import ProductSearch, open_search
from product_retrieval.querying.query import Against, Part, ProductPart, Query, VectorPart

__all__ = [
    "Against",
    "Answer",
    "Filter",
    "Found",
    "Part",
    "ProductPart",
    "ProductSearch",
    "Query",
    "VectorPart",
    "open_search",
    "parse_filter",
    "parse_filter_text",
]
