"""Which version is served: each replica looks at the alias and moves to the version that it names, if that can be.

A version is opened and checked beside the one that answers, and takes its place by one assignment: a request that has
begun ends on the version it began with. What cannot be served is refused and the old version stays.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from product_retrieval.errors import ArtifactError, EncoderError, RetrievalError
from product_retrieval.index.gates import MIN_SELF_FOUND
from product_retrieval.index.manifest import IndexManifest
from product_retrieval.index.opening import resident_bytes
from product_retrieval.index.versions import Alias, read_alias, read_manifest
from product_retrieval.memory import available_bytes
from product_retrieval.storage import Storage
from serve.served_index import ServedIndex

logger = logging.getLogger("ray.serve")  # the one that Serve writes to the replica's log

RETRY_REFUSED_S = 60.0
"""A version is tried again after this, for the store may have been out of reach; or at once when the alias moves."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A version that is not served."""

    version: int
    generation: int
    """Of the alias."""
    reason: str
    at_s: float
    """time.monotonic()."""


class IndexMetrics(Protocol):
    """Where it is counted; ServiceMetrics does."""

    def show_index(self, *, version: int, age_s: float) -> None:
        """Show which version answers, and how many seconds ago it was published."""
        ...

    def count_refused_swap(self, reason: str) -> None:
        """Count a version that was refused, by the type of the error."""
        ...


class VersionFollower:
    """Holds the version that is served."""

    def __init__(
        self,
        storage: Storage,
        fingerprint: str,
        *,
        pinned: int | None = None,
        metrics: IndexMetrics | None = None,
    ) -> None:
        """Open the current version, or the latest that was current and can be served.

        Args:
            storage: the index's folder.
            fingerprint: digest of the encoder of the queries.
            pinned: serve this version whatever the alias says.
            metrics: are told which version answers, and which were refused.

        Raises:
            RetrievalError: none can be served.
        """
        self._storage = storage
        self._fingerprint = fingerprint
        self._pinned = pinned
        self._metrics = metrics
        self._checking = threading.Lock()
        self._stopped = threading.Event()
        self.refused: Refusal | None = None
        self.served = self._open_first()
        self._show()

    def start(self, poll_s: float) -> None:
        """Look at the alias from time to time, in a thread of its own."""
        threading.Thread(target=self._poll, args=(poll_s,), name="follow-alias", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def check(self) -> None:
        """Move to the version that the alias names now, if there is another and it can be served; never raises."""
        if self._pinned is not None:
            return
        with self._checking:
            try:
                alias = read_alias(self._storage)
            except Exception as error:  # noqa: BLE001 - whatever a store raises, the version that is served goes on
                logger.warning("alias_unreadable uri=%s error=%s", self._storage.uri, error)
                return
            if alias.version == self.served.version:
                self.refused = None
            elif not self._was_refused(alias):
                self._move(alias)

    def _poll(self, poll_s: float) -> None:
        while not self._stopped.wait(poll_s):
            self.check()
            self._show()

    def _show(self) -> None:
        if self._metrics is not None:
            published = datetime.fromisoformat(self.served.manifest.created)
            age_s = (datetime.now(UTC) - published).total_seconds()
            self._metrics.show_index(version=self.served.version, age_s=age_s)

    def _was_refused(self, alias: Alias) -> bool:
        refused = self.refused
        is_same = refused is not None and (refused.version, refused.generation) == (alias.version, alias.generation)
        return is_same and refused is not None and time.monotonic() - refused.at_s < RETRY_REFUSED_S

    def _move(self, alias: Alias) -> None:
        started = time.monotonic()
        try:
            opened = self._open(alias.version)
        except Exception as error:  # noqa: BLE001 - a version that cannot be served must not end the one that can
            self._refuse(alias, error)
            return
        before, self.served, self.refused = self.served.version, opened, None
        logger.info(
            "version_moved uri=%s from=%s to=%s opened_s=%.2f",
            self._storage.uri, before, opened.version, time.monotonic() - started,
        )  # fmt: skip

    def _refuse(self, alias: Alias, error: Exception) -> None:
        reason, kind = str(error) or repr(error), type(error).__name__
        self.refused = Refusal(alias.version, alias.generation, reason, time.monotonic())
        logger.error("version_refused uri=%s version=%s reason=%s", self._storage.uri, alias.version, reason)
        if self._metrics is not None:
            self._metrics.count_refused_swap(kind)

    def _open_first(self) -> ServedIndex:
        if self._pinned is not None:
            return self._open(self._pinned)
        alias = read_alias(self._storage)
        first: RetrievalError | None = None
        for version in dict.fromkeys((alias.version, *reversed(alias.history))):
            try:
                return self._open(version)
            except RetrievalError as error:
                first = first or error
                self._refuse(alias, error)
        assert first is not None
        raise first

    def _open(self, version: int) -> ServedIndex:
        """Open a version.

        Raises:
            RetrievalError: it must not or cannot be served.
        """
        manifest = read_manifest(self._storage, version)
        if manifest.fingerprint.digest != self._fingerprint:
            raise EncoderError(
                f"version {version} was made with another model ({manifest.model}) than queries are encoded with: "
                "deploy the service anew for it"
            )
        check_gates_passed(manifest)
        needed, free = resident_bytes(self._storage, manifest), available_bytes()
        if free is not None and needed > free:
            raise ArtifactError(
                f"version {version} needs {needed / 2**30:.1f} GiB of memory beside the version that is served; "
                f"{free / 2**30:.1f} GiB are free"
            )
        return ServedIndex(self._storage, version)


def check_gates_passed(manifest: IndexManifest) -> None:
    """Make sure that a version was checked before it was published.

    Raises:
        ArtifactError: it was not, or did not pass.
    """
    for side in manifest.sides:
        found = manifest.gates.get(f"{side}_self_found")
        if found is None or found < MIN_SELF_FOUND:
            raise ArtifactError(
                f"version {manifest.version}: its gates do not say that the products of its {side} side find "
                "themselves: publish it by build_index"
            )
