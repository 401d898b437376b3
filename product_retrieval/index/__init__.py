"""The search index: versions of it, how it is built, and how it answers."""

from product_retrieval.index.manifest import IndexManifest
from product_retrieval.index.ranking import Hits
from product_retrieval.index.searcher import ProductIndex
from product_retrieval.index.spec import IndexSpec, OperatingPoint, Side, choose_spec
from product_retrieval.index.versions import open_index

__all__ = ["Hits", "IndexManifest", "IndexSpec", "OperatingPoint", "ProductIndex", "Side", "choose_spec", "open_index"]
