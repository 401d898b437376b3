"""Options of an evaluation."""

from __future__ import annotations

import re
from dataclasses import dataclass

from product_retrieval.command import LogLevel
from product_retrieval.encoders.protocol import Device

LIMIT = re.compile(
    r"(?P<direction>\w+)\.(?:(?P<relevant>product|group|judged)\.)?(?P<measure>[\w@]+)=(?P<least>\d*\.?\d+)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """What to evaluate, on which queries, and where the report goes."""

    index: str
    """Folder of the index; local or in an object store."""
    output: str
    """Folder of the report; local or in an object store."""
    version: int | None = None
    """Version of the index; default: the current one."""
    where: str | None = None
    """Which products ask, such as `split=heldout`; all products stay in the gallery."""
    photos: str | None = None
    """Parquet with product_id and image: other photos of the products, as further queries."""
    queries: str | None = None
    """Parquet or JSON lines with query_id and text or image: queries of your own, judged by --judgements."""
    judgements: str | None = None
    """TREC qrels, or Parquet or JSON lines with query_id, product_id and relevance."""
    num_queries: int | None = None
    """Products that ask at most, a seeded sample; default: all."""
    ks: tuple[int, ...] = (1, 5, 10, 50, 100)
    """Cut-offs of hit@k, recall@k and capped recall@k."""
    analysis: bool = True
    """Also measure the alignment of the modalities, look into the misses, and disturb the texts."""
    baseline: str | None = None
    """Report of another run on the same queries, as a folder, to compare with."""
    fail_under: tuple[str, ...] = ()
    """Least means, such as text_to_image.recall@10=0.6 or text_to_image.group.hit@1=0.4; below one, exit code 1."""
    trec: bool = False
    """Also write runs and judgements in TREC's formats."""
    device: Device = "auto"
    """Where photos, queries and disturbed texts are encoded."""
    seed: int = 0
    """Of the samples, the bootstrap and the disturbances."""
    log_level: LogLevel = "warning"
    """How much is logged to stderr."""

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"--ks are cut-offs of at least 1, not {self.ks}")
        if self.num_queries is not None and self.num_queries < 1:
            raise ValueError(f"--num-queries must be at least 1, not {self.num_queries}")
        if (self.queries is None) != (self.judgements is None):
            raise ValueError("--queries and --judgements go together: what is asked, and what is right")
        for text in self.fail_under:
            parse_limit(text)


@dataclass(frozen=True, slots=True)
class Limit:
    """A mean that must be reached."""

    direction: str
    """Such as `text_to_image`."""
    relevant: str | None
    """None: the first that the direction has."""
    measure: str
    least: float


def parse_limit(text: str) -> Limit:
    """Return what `DIRECTION.MEASURE=NUMBER` or `DIRECTION.RELEVANT.MEASURE=NUMBER` says.

    Raises:
        ValueError: it says nothing of the kind.
    """
    found = LIMIT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"--fail-under {text}: a limit is such as text_to_image.recall@10=0.6")
    return Limit(found["direction"], found["relevant"], found["measure"], float(found["least"]))
