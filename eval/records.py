"""A report on disk: what it was made from, what it holds, and whether it is good enough."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from eval.comparison import compare_tables, describe_comparison
from eval.options import EvaluateOptions, parse_limit
from eval.report import render_report
from product_retrieval.errors import ArtifactError, OptionsError, RetrievalError
from product_retrieval.index import IndexManifest
from product_retrieval.storage import Storage

SCHEMA = 2
"""Of report.json; raised where a reader of the one before would be wrong."""
RECORD, PAGE, QUERIES = "report.json", "report.html", "queries.parquet"
NOT_ASKED = ("index", "output", "log_level", "device", "baseline", "fail_under")
"""Options that the numbers do not depend on."""


def identify(options: EvaluateOptions, manifest: IndexManifest) -> str:
    """Return a hash of everything that the numbers depend on."""
    asked = {name: value for name, value in asdict(options).items() if name not in NOT_ASKED}
    asked |= {"build_id": manifest.build_id, "version": manifest.version, "schema": SCHEMA}
    for name in ("photos", "queries", "judgements"):
        if asked[name] is not None and Path(asked[name]).is_file():
            with open(asked[name], "rb") as file:
                asked[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def find_report(output: Storage, identity: str) -> dict[str, Any] | None:
    """Return the record of a complete report on the same index and queries, or None where there is none."""
    try:
        record = json.loads(output.read(RECORD))
    except (ArtifactError, ValueError):
        return None
    is_same = isinstance(record, dict) and record.get("identity") == identity and record.get("schema") == SCHEMA
    return record if is_same else None


def read_report(storage: Storage) -> tuple[dict[str, Any], pa.Table]:
    """Return the record of a report and its table of queries.

    Raises:
        ArtifactError: there is none, it is damaged, or of another format.
    """
    try:
        record = json.loads(storage.read(RECORD))
        if record["schema"] != SCHEMA:
            raise ArtifactError(f"{storage.uri}: a report of format {record['schema']}, not {SCHEMA}: evaluate again")
        return record, pq.read_table(io.BytesIO(storage.read(QUERIES)))
    except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise ArtifactError(f"{storage.uri}: not a report: {error}", path=storage.uri) from error


def forget_report(output: Storage) -> None:
    """Take away the record of an older report, so that nobody takes it for the one that is being made."""
    output.delete(RECORD)


def write_report(output: Storage, record: Mapping[str, Any], queries: pa.Table, pictures: Mapping[str, str]) -> None:
    """Write the three files of a report.

    Args:
        output: the report's folder.
        record: what report.json holds.
        queries: what queries.parquet holds.
        pictures: by product_id, those that the page shows, as data URIs.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    buffer = io.BytesIO()
    pq.write_table(queries, buffer, compression="zstd")
    put(output, QUERIES, buffer.getvalue())
    write_record(output, record, pictures)


def compare_with(
    output: Storage, record: dict[str, Any], baseline: Storage, pictures: Mapping[str, str], *, seed: int
) -> dict[str, Any]:
    """Compare a report with another one, and put the comparison into its record and its page.

    Raises:
        ArtifactError: the other one cannot be read, or asked none of the same queries.
    """
    other, queries_before = read_report(baseline)
    _, queries_now = read_report(output)
    differences, changed = compare_tables(queries_before, queries_now, seed=seed)
    comparison = describe_comparison(other, differences, changed)
    write_record(output, {**record, "comparison": comparison}, pictures)
    return comparison


def write_record(output: Storage, record: Mapping[str, Any], pictures: Mapping[str, str]) -> None:
    """Write the page and the record of a report, the record last: where it is, the report is complete."""
    forget_report(output)
    put(output, PAGE, render_report(record, pictures).encode())
    put(output, RECORD, (json.dumps(record, indent=1, default=str) + "\n").encode())


def put(output: Storage, name: str, data: bytes) -> None:
    """Write a file of a report, whatever was there before.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    try:
        output.delete(name)
        if not output.put_if_absent(name, data):
            raise ArtifactError(f"{output.path(name)}: somebody else writes a report here", path=output.path(name))
    except OSError as error:
        raise ArtifactError(f"{output.path(name)}: cannot write: {error.strerror or error}", path=output.uri) from error


def check_limits(results: Sequence[Mapping[str, Any]], limits: Sequence[str]) -> None:
    """Compare means with the least that they must be.

    Raises:
        RetrievalError: one is below, with every one that is.
        OptionsError: there is no such direction or measure.
    """
    below = []
    for text in limits:
        limit = parse_limit(text)
        found = [result for result in results if key_of(result["name"]) == limit.direction]
        found = [result for result in found if limit.relevant in (None, result["relevant"])]
        if not found or limit.measure not in found[0]["measures"]:
            known = sorted(
                {f"{key_of(r['name'])}.{r['relevant']}.{measure}" for r in results for measure in r["measures"]}
            )
            raise OptionsError(f"--fail-under {text}: no such measure; there are {', '.join(known)}")
        mean = found[0]["measures"][limit.measure]["mean"]
        if mean < limit.least:
            below.append(f"{limit.direction}.{found[0]['relevant']}.{limit.measure} is {mean:.4f}, below {limit.least}")
    if below:
        raise RetrievalError("; ".join(below))


def key_of(direction: str) -> str:
    """Return what a direction is called in options and file names: `text_to_image` for `text -> image`."""
    return direction.replace(" -> ", "_to_").replace(" ", "_")
