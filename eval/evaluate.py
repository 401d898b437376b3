"""Say how good a search index is: hit@k in both directions with intervals and chance beside it.

    python -m eval.evaluate --index out/demo/index --output out/demo/report --where split=heldout
    python -m eval.evaluate --index out/index --output out/report --photos other_photos.parquet

Queries are the catalogue's own products: each one's text looks for its picture among all pictures, and its picture
for its text. --photos adds other photos of the products as queries. Writes report.html, report.json and
queries.parquet (one row a query and direction).

Exit codes: 0 done, 2 options, 3 catalogue, 4 artefact, 5 encoder, 1 anything else.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray

from eval.queries import QuerySet, Relevance, own_queries, photo_queries, relevance, select_rows
from eval.ranks import BLOCK_ROWS, Counts, best_right_scores, count_on_cluster
from eval.report import render_report
from eval.results import DirectionResult, summarize
from product_retrieval.command import LogLevel, run
from product_retrieval.encoders import EncoderOptions, load_encoder
from product_retrieval.errors import ArtifactError
from product_retrieval.index import IndexManifest, ProductIndex, open_index
from product_retrieval.index.spec import SIDES, SOURCES, Side
from product_retrieval.progress import format_duration
from product_retrieval.session import ray_session
from product_retrieval.storage import Storage

PROGRAM = "python -m eval.evaluate"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """What to evaluate, on which queries, and where the report goes."""

    index: str
    """Folder of the index; local or in an object store."""
    output: str
    """Folder of the report."""
    version: int | None = None
    """Version of the index; default: the current one."""
    where: str | None = None
    """Which products ask, such as `split=heldout`; all products stay in the gallery."""
    photos: str | None = None
    """Parquet with product_id and image: other photos of the products, as further queries."""
    num_queries: int | None = None
    """Products that ask at most, a seeded sample; default: all."""
    ks: tuple[int, ...] = (1, 5, 10)
    """Cut-offs of hit@k."""
    seed: int = 0
    """Of the sample and the bootstrap."""
    log_level: LogLevel = "warning"
    """How much is logged to stderr."""

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"--ks are cut-offs of at least 1, not {self.ks}")
        if self.num_queries is not None and self.num_queries < 1:
            raise ValueError(f"--num-queries must be at least 1, not {self.num_queries}")


def evaluate(options: EvaluateOptions) -> None:
    """Evaluate and report; see the module's text."""
    started = time.monotonic()
    index, manifest = open_index(Storage.at(options.index), options.version)
    identity, output = identify(options, manifest), Path(options.output)
    record = find_report(output, identity)
    if record is None:
        results, queries = measure_all(options, index, manifest)
        seconds = time.monotonic() - started
        record = {"identity": identity, **describe(options, manifest, results, seconds=seconds)}
        write_report(output, record, queries)
    else:
        print(f"{output}: already evaluated; nothing to do")
    print(format_results(record["results"]))
    print(f"  {output / 'report.html'}, {format_duration(time.monotonic() - started)}")


def identify(options: EvaluateOptions, manifest: IndexManifest) -> str:
    """Return a hash of everything that the numbers depend on."""
    asked = {name: value for name, value in asdict(options).items() if name not in ("index", "output", "log_level")}
    asked |= {"build_id": manifest.build_id, "version": manifest.version}
    if options.photos is not None and Path(options.photos).is_file():
        asked["photos"] = hashlib.sha256(Path(options.photos).read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def find_report(output: Path, identity: str) -> dict[str, Any] | None:
    """Return the record of a report on the same index and queries, or None where there is none."""
    try:
        record = json.loads((output / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_same = isinstance(record, dict) and record.get("identity") == identity
    return record if is_same and (output / "report.html").is_file() else None


def measure_all(
    options: EvaluateOptions, index: ProductIndex, manifest: IndexManifest
) -> tuple[list[DirectionResult], pa.Table]:
    """Measure every direction that the index and the queries allow; return the numbers, and a row a query.

    Raises:
        ArtifactError: there is no direction.
    """
    rows = sample_rows(select_rows(index, options.where), options)
    right = relevance(index, rows)
    query_sets = [own_queries(index, side, rows) for side in SIDES if side in index.sides]
    if options.photos is not None:
        encoder = load_encoder(EncoderOptions(model=manifest.model))
        query_sets.append(photo_queries(Path(options.photos), index, encoder, rows))
    results: list[DirectionResult] = []
    tables: list[pa.Table] = []
    with ray_session(ray):
        for queries in query_sets:
            for side, made_of in SOURCES.items():
                if side in index.sides and queries.name not in made_of:  # else its own vector would find itself
                    found, table = measure(index, queries, side, right, options)
                    results += found
                    tables.append(table)
    if not results:
        raise ArtifactError(f"{options.index}: has one side only, so there is no other to look for; add --photos")
    return results, pa.concat_tables(tables)


def sample_rows(rows: NDArray[np.int64], options: EvaluateOptions) -> NDArray[np.int64]:
    """Return a seeded sample of the products that may ask."""
    if options.num_queries is None or options.num_queries >= len(rows):
        return rows
    return np.sort(np.random.default_rng(options.seed).choice(rows, options.num_queries, replace=False))


def measure(
    index: ProductIndex, queries: QuerySet, side: Side, right: Relevance, options: EvaluateOptions
) -> tuple[list[DirectionResult], pa.Table]:
    """Count ranks for one direction; return its numbers, and a row a query."""
    num_products = int(sum(block.any(axis=1).sum() for _, block in index.blocks(side, BLOCK_ROWS)))
    name = f"{queries.name} -> {side}"
    clusters = [str(c) for c in cluster_names(index, queries.rows)]
    results, columns = [], {}
    for relevant, members in (("product", right.product), ("group", right.group)):
        if members is None:
            continue
        correct = [present(index, members[int(row)], side) for row in queries.rows]
        answerable = [position for position, rows in enumerate(correct) if len(rows)]
        asked, relevant_rows = queries.vectors[answerable], [correct[i] for i in answerable]
        best = best_right_scores(asked, partial(index.vectors_of, side=side), relevant_rows)
        counts = count_on_cluster(asked, best, relevant_rows, index.blocks(side, BLOCK_ROWS))
        counts = with_unanswerable(counts, answerable, len(queries.rows), num_products)
        num_relevant = np.array([max(len(rows), 1) for rows in correct])
        results.append(
            summarize(
                name,
                relevant,
                counts.num_greater,
                counts.num_equal,
                num_relevant,
                clusters,
                num_products=num_products,
                ks=options.ks,
                seed=options.seed,
            )
        )
        columns[f"{relevant}_num_greater"] = counts.num_greater
        columns[f"{relevant}_num_equal"] = counts.num_equal
    table = pa.table(
        {
            "direction": [name] * len(queries.rows),
            "product_id": index.column("product_id").take(pa.array(queries.rows)),
            **columns,
        }
    )
    return results, table


def present(index: ProductIndex, rows: NDArray[np.int64], side: Side) -> NDArray[np.int64]:
    """Return the rows that have a vector of a side."""
    return rows[index.vectors_of(rows, side).any(axis=1)]


def with_unanswerable(counts: Counts, answerable: list[int], num_queries: int, num_products: int) -> Counts:
    """Put queries whose right products lack the searched side last in the gallery: they count as misses."""
    greater = np.full(num_queries, num_products, np.int64)
    equal = np.zeros(num_queries, np.int64)
    greater[answerable], equal[answerable] = counts.num_greater, counts.num_equal
    return Counts(greater, equal)


def cluster_names(index: ProductIndex, rows: NDArray[np.int64]) -> list[str]:
    """Return what is resampled together: the group of each query's product, or the product itself."""
    column = "group_id" if "group_id" in index.column_names else "product_id"
    groups = index.column(column).take(pa.array(rows)).to_pylist()
    ids = index.column("product_id").take(pa.array(rows)).to_pylist()
    return [group or own for group, own in zip(groups, ids, strict=True)]


def describe(
    options: EvaluateOptions, manifest: IndexManifest, results: list[DirectionResult], *, seconds: float
) -> dict[str, Any]:
    """Return the report as one record."""
    return {
        "index": options.index,
        "version": manifest.version,
        "model": manifest.model,
        "fingerprint": manifest.fingerprint.digest,
        "num_products": manifest.num_products,
        "options": asdict(options),
        "seconds": round(seconds, 2),
        "results": [asdict(result) for result in results],
        "index_recall_at_10": {
            f"{kind} queries, {side} side": point.recall_at_10
            for side, described in manifest.sides.items()
            for kind, point in described.points.items()
        },
    }


def write_report(output: Path, record: dict[str, Any], queries: pa.Table) -> None:
    """Write the three files of a report.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        pq.write_table(queries, output / "queries.parquet", compression="zstd")
        (output / "report.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        (output / "report.html").write_text(render_report(record), encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"{output}: cannot write: {error.strerror or error}", path=str(output)) from error


def format_results(results: list[dict[str, Any]]) -> str:
    """Return the directions as a table for a terminal."""
    names = list(results[0]["hits"])
    header = f"  {'':<16} {'right hit':<9} {'queries':>7} {'gallery':>7}"
    lines = [header + "".join(f"  {name + ' (95 %)':>24}  {'chance':>6}" for name in names)]
    for result in results:
        line = (
            f"  {result['name']:<16} {result['relevant']:<9} {result['num_queries']:>7,} {result['num_products']:>7,}"
        )
        for name in names:
            e = result["hits"][name]
            interval = f"{e['mean']:.3f} ({e['low']:.3f}-{e['high']:.3f})"
            line += f"  {interval:>24}  {e['chance']:>6.4f}"
        lines.append(line)
    return "\n".join(lines)


def main() -> int:
    """Run the command."""
    return run(evaluate, EvaluateOptions, program=PROGRAM, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
