"""Products that cannot be embedded, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Stage = Literal["read", "fetch", "decode", "encode"]

REJECTION_SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("source", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""One row a rejected product: its id where it has one, `file:row`, the stage, a reason code, and what was found."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a product has no vectors."""

    source: str
    stage: Stage
    reason: str
    detail: str = ""
    product_id: str | None = None

    def row(self) -> dict[str, str | None]:
        """Return the row of the rejected table."""
        return {name: getattr(self, name) for name in REJECTION_SCHEMA.names}
