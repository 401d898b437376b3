"""The errors of this library; each names the exit code of a job that it ends.

Every class takes its message first and optional keywords after it: only then does an error keep its type when it
is pickled between processes.
"""

from __future__ import annotations


class RetrievalError(Exception):
    """Something a user can mend: the message says what is wrong, where, and what to do."""

    exit_code = 1


class OptionsError(RetrievalError):
    """The options contradict one another or name something that does not exist."""

    exit_code = 2


class CatalogError(RetrievalError):
    """The product table cannot be used."""

    exit_code = 3

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class ArtifactError(RetrievalError):
    """Embeddings, an index or a report cannot be read, do not fit, or cannot be written."""

    exit_code = 4

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class EncoderError(RetrievalError):
    """The model cannot be loaded or does not fit the artefact it is used with."""

    exit_code = 5


class QueryError(RetrievalError):
    """A query cannot be answered as it was asked; the index is fine."""

    exit_code = 2

    def __init__(self, message: str, *, field: str = "") -> None:
        """Say what is wrong with which part of the query, such as `filter.and[1].range`."""
        super().__init__(message)
        self.field = field


class ClusterError(RetrievalError):
    """Ray cannot be started or reached, or cannot schedule the plan."""
