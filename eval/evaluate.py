"""Say how good a search index is, where it fails and why.

    python -m eval.evaluate --index out/demo/index --output out/demo/report --where split=heldout
    python -m eval.evaluate --index out/index --output out/report --photos other_photos.parquet
    python -m eval.evaluate --index out/index --output out/report --queries asked.jsonl --judgements asked.qrels
    python -m eval.evaluate --index out/index --output out/report --fail-under text_to_image.recall@10=0.6

Queries are the catalogue's own products: each one's text looks for its picture among all pictures, and its picture
for its text; --photos and --queries add others. Writes report.html, report.json and queries.parquet (a row a query
and direction), with --trec also runs and judgements for TREC's software.

Exit codes: 0 done, 1 below --fail-under or anything else, 2 options, 3 catalogue, 4 artefact, 5 encoder.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray

from eval.analysis import analyse
from eval.directions import Measured, cluster_labels, measure_direction, plan_directions
from eval.evaluation import Evaluation
from eval.exact_pass import cluster_workers
from eval.index_quality import measure_index
from eval.judged import Judgements
from eval.judgements import CatalogTruth, read_judgements
from eval.options import EvaluateOptions
from eval.queries import file_queries, own_queries, photo_queries, select_rows
from eval.query_table import query_table
from eval.records import SCHEMA, check_limits, compare_with, find_report, forget_report, identify, write_report
from eval.report import pictured
from eval.slicing import slice_directions
from eval.summary import format_comparison, format_results
from eval.thumbnails import thumbnails
from eval.trec import write_trec
from product_retrieval.command import run
from product_retrieval.index import IndexManifest, open_index
from product_retrieval.index.spec import SIDES
from product_retrieval.progress import format_duration
from product_retrieval.session import ray_session
from product_retrieval.storage import Storage

PROGRAM = "python -m eval.evaluate"
PARTS = ".parts"
"""Below the report's folder: what a run that was killed had searched already."""
DEPTH = 10
"""Hits of each query that the report keeps, at least."""


def evaluate(options: EvaluateOptions) -> None:
    """Evaluate and report; see the module's text."""
    started = time.monotonic()
    output = Storage.at(options.output)
    index, manifest = open_index(Storage.at(options.index), options.version)
    identity = identify(options, manifest)
    record = find_report(output, identity)
    if record is None:
        forget_report(output)
        with ray_session(ray):
            evaluation = Evaluation(
                options, index, manifest, CatalogTruth(index), cluster_workers(), output.sub(f"{PARTS}/{identity}")
            )
            measured, num_dropped = measure_all(evaluation)
            record = {
                **describe(options, manifest, identity),
                "queries": num_dropped,
                "results": [asdict(result) for one in measured for result in one.results],
                "slices": [asdict(result) for result in slice_directions(evaluation, measured)],
                "index_quality": measure_index(evaluation, measured),
                **(analyse(evaluation, measured) if options.analysis else {}),
            }
        record["seconds"] = round(time.monotonic() - started, 2)
        pictures = thumbnails(index, manifest, pictured(record))
        write_report(output, record, query_table(evaluation, measured), pictures)
        if options.trec:
            write_trec(output, index, measured)
        forget_parts(output)
    else:
        print(f"{options.output}: already evaluated; nothing to do")
    print(format_results(record["results"]))
    if options.baseline is not None:
        pictures = thumbnails(index, manifest, pictured(record))
        print(
            format_comparison(compare_with(output, record, Storage.at(options.baseline), pictures, seed=options.seed))
        )
    print(f"  {Path(options.output) / 'report.html'}, {format_duration(time.monotonic() - started)}")
    check_limits(record["results"], options.fail_under)


def measure_all(evaluation: Evaluation) -> tuple[list[Measured], dict[str, int]]:
    """Measure every direction that the index and the queries allow; also count the queries that could not ask."""
    options, index = evaluation.options, evaluation.index
    rows = select_rows(index, options.where)
    rows = evaluation.sample(rows, options.num_queries or len(rows))
    sets = [own_queries(index, side, rows) for side in SIDES if side in index.sides]
    dropped = {f"products without {queries.name}": len(rows) - len(queries.rows) for queries in sets}
    if options.photos is not None:
        sets.append(photo_queries(Path(options.photos), index, evaluation.encoder, rows))
    judged: dict[str, Judgements] = {}
    if options.queries is not None and options.judgements is not None:
        asked, dropped["queries of the file that cannot be read"] = file_queries(
            Path(options.queries), evaluation.encoder
        )
        for queries in asked:
            judged[queries.name], missing = read_judgements(Path(options.judgements), queries.ids, index)
            dropped[f"judgements of {queries.name} on products that the index lacks"] = missing
            unjudged = int((judged[queries.name].num_right == 0).sum())
            dropped[f"{queries.name} without a right product"] = unjudged
        sets += asked
    directions = plan_directions(index, sets, evaluation.truth, lambda queries: judged[queries.name])
    measured = []
    for direction in directions:
        print(f"  {direction.name}: {len(direction.queries.rows):,} queries", file=sys.stderr, flush=True)
        measured.append(
            measure_direction(
                direction,
                index,
                evaluation.search,
                clusters=cluster_labels(evaluation.truth, direction.queries),
                num_products=evaluation.num_products[direction.side],
                ks=options.ks,
                depth=max(*options.ks, DEPTH) if options.trec else DEPTH,
                seed=options.seed,
            )
        )
    return measured, {name: count for name, count in dropped.items() if count}


def forget_parts(output: Storage) -> None:
    """Take away what was kept of searches for a run that would have been killed, and its half-written files."""
    for name, _, _ in output.files_below(PARTS):
        output.delete(name)
    output.clear_staging()


def describe(options: EvaluateOptions, manifest: IndexManifest, identity: str) -> dict[str, Any]:
    """Return what was evaluated, for the record."""
    return {
        "schema": SCHEMA,
        "identity": identity,
        "index": options.index,
        "version": manifest.version,
        "build_id": manifest.build_id,
        "model": manifest.model,
        "fingerprint": manifest.fingerprint.digest,
        "catalog": manifest.catalog,
        "num_products": manifest.num_products,
        "factories": {side: described.factory for side, described in manifest.sides.items()},
        "options": asdict(options),
    }


def main() -> int:
    """Run the command."""
    return run(evaluate, EvaluateOptions, program=PROGRAM, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
