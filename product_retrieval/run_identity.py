"""What the rows of an output depend on: a folder belongs to one run, and vectors travel only between equal ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from product_retrieval.catalog import CatalogPlan
from product_retrieval.earlier import EarlierVectors
from product_retrieval.embeddings import RUN, VectorType, vector_type_of
from product_retrieval.encoders import EncoderOptions
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError
from product_retrieval.images import ImageLimits
from product_retrieval.storage import Storage

PREPARATION = 1
"""Raised when a new version of this project would turn the same picture or text into another vector."""

PRODUCTS = ("catalog", "fetch")
"""What of the record decides which products there are, but not what becomes of their pictures and texts."""


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """A catalogue, a model and the options that decide about the rows."""

    record: bytes
    """Canonical JSON of all of it."""
    fingerprint: Fingerprint

    @classmethod
    def of(
        cls,
        plan: CatalogPlan,
        fingerprint: Fingerprint,
        *,
        encoder: EncoderOptions,
        limits: ImageLimits,
        vector_type: VectorType,
    ) -> RunIdentity:
        """Describe a run."""
        record = {
            "catalog": plan.fingerprint,
            "fetch": plan.fetch.allowing,
            "fingerprint": asdict(fingerprint),
            "limits": asdict(limits),
            "precision": encoder.precision,
            "preparation": PREPARATION,
            "vector_type": vector_type,
        }
        return cls((json.dumps(record, sort_keys=True, indent=1) + "\n").encode(), fingerprint)

    @property
    def id(self) -> str:
        """Short name that each part carries."""
        return hashlib.sha256(self.record).hexdigest()[:16]

    def check(self, storage: Storage) -> None:
        """Check that a folder holds this run or nothing.

        Raises:
            ArtifactError: it holds embeddings of something else.
        """
        if storage.exists(RUN) and storage.read(RUN) != self.record:
            raise ArtifactError(
                f"{storage.uri}: holds embeddings made with another {self._differing(storage)}; "
                "choose another --output (--reuse takes over what is the same) or delete that one",
                path=storage.uri,
            )

    def claim(self, storage: Storage) -> None:
        """Take a folder for this run; a second driver of the same run is welcome.

        Raises:
            ArtifactError: it holds embeddings of something else.
        """
        if not storage.put_if_absent(RUN, self.record):
            self.check(storage)

    def earlier_vectors(self, reuse: str | None, *, trust_references: bool) -> EarlierVectors | None:
        """Open the embeddings whose vectors are taken over.

        Args:
            reuse: their folder, or None.
            trust_references: whether equal paths and URLs are taken for equal pictures.

        Raises:
            ArtifactError: there are none, or their vectors would differ from this run's.
        """
        if reuse is None:
            return None
        storage = Storage.at(reuse)
        if not storage.exists(RUN):
            raise ArtifactError(f"--reuse {storage.uri}: no embeddings there (no {RUN})", path=storage.uri)
        differing = self._differing(storage, but=PRODUCTS)
        if differing:
            raise ArtifactError(
                f"--reuse {storage.uri}: made with another {differing}, so none of its vectors can be taken over",
                path=storage.uri,
            )
        theirs = self._read(storage)
        vector_type = vector_type_of(theirs["vector_type"], self.fingerprint.dim)
        return EarlierVectors.of(storage, vector_type, trust_references=trust_references)

    def _differing(self, storage: Storage, *, but: Collection[str] = ()) -> str:
        theirs, ours = self._read(storage), json.loads(self.record)
        return ", ".join(sorted(name for name in ours if name not in but and ours[name] != theirs.get(name)))

    @staticmethod
    def _read(storage: Storage) -> dict[str, Any]:
        try:
            record = json.loads(storage.read(RUN))
        except ValueError as error:
            raise ArtifactError(f"{storage.path(RUN)}: not readable: {error}", path=storage.uri) from error
        if not isinstance(record, dict):
            raise ArtifactError(f"{storage.path(RUN)}: no record of a run", path=storage.uri)
        return record
