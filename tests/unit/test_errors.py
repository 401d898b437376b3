"""Errors keep their type, message and fields when they cross a process, and name the exit code of a job."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

from product_retrieval.catalog.contained import UnreadableImageError
from product_retrieval.errors import (
    ArtifactError,
    CatalogError,
    ClusterError,
    EncoderError,
    OptionsError,
    QueryError,
    RetrievalError,
)


def all_below(error: type[RetrievalError]) -> Iterator[type[RetrievalError]]:
    yield error
    for child in error.__subclasses__():
        if child.__module__ == error.__module__:  # other packages in this process may have errors of their own
            yield from all_below(child)


def test_every_error_is_in_this_list() -> None:
    known = {RetrievalError, OptionsError, CatalogError, ArtifactError, EncoderError, QueryError, ClusterError}
    assert set(all_below(RetrievalError)) == known


@pytest.mark.parametrize("error", list(all_below(RetrievalError)), ids=lambda error: error.__name__)
def test_error_survives_pickle_with_its_type(error: type[RetrievalError]) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error("what, where, what to do"), protocol))
        assert type(again) is error
        assert str(again) == "what, where, what to do"
        assert again.exit_code == error.exit_code


@pytest.mark.parametrize("error", [CatalogError, ArtifactError])
def test_path_of_an_error_survives_pickle(error: type[CatalogError] | type[ArtifactError]) -> None:
    again = pickle.loads(pickle.dumps(error("broken", path="shop/a.csv")))
    assert (str(again), again.path) == ("broken", "shop/a.csv")
    assert copy.copy(error("broken", path="shop/a.csv")).path == "shop/a.csv"


def test_field_of_a_query_error_survives_pickle() -> None:
    again = pickle.loads(pickle.dumps(QueryError("k is from 1 to 1000, not 0", field="k")))
    assert (str(again), again.field) == ("k is from 1 to 1000, not 0", "k")


def test_reason_of_an_unreadable_image_survives_pickle() -> None:
    again = pickle.loads(pickle.dumps(UnreadableImageError("image_not_found", "a.png")))
    assert (again.reason, again.detail) == ("image_not_found", "a.png")


def test_exit_codes_are_these() -> None:
    codes = {error.__name__: error.exit_code for error in all_below(RetrievalError)}
    assert codes == {
        "RetrievalError": 1,
        "OptionsError": 2,
        "CatalogError": 3,
        "ArtifactError": 4,
        "EncoderError": 5,
        "QueryError": 2,
        "ClusterError": 1,
    }
