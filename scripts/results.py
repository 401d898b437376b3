"""Put the demo's measured numbers into README.md and docs/results.md, after `make demo`.

    python scripts/results.py

Reads out/demo/{report/report.json,index}. Rewrites what stands between the `results` marks of both files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "out" / "demo"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def main() -> int:
    """Rewrite both files."""
    report = json.loads((DEMO / "report" / "report.json").read_text(encoding="utf-8"))
    version = json.loads((DEMO / "index" / "current.json").read_text(encoding="utf-8"))["version"]
    index = json.loads((DEMO / "index" / "versions" / f"{version:06d}.json").read_text(encoding="utf-8"))
    replace(ROOT / "README.md", quality_table(report))
    replace(ROOT / "docs" / "results.md", f"{quality_table(report)}\n{index_table(index)}")
    return 0


def quality_table(report: Mapping[str, Any]) -> str:
    """Return hit@k of the held-out products as Markdown."""
    lines = [
        "| direction | right hit | queries | gallery | chance of hit@10 | hit@1 | hit@5 | hit@10 (95 %) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in report["results"]:
        hits = result["measures"]
        ten = hits["hit@10"]
        lines.append(
            f"| {result['name']} | {result['relevant']} | {result['num_queries']:,} | {result['num_products']:,} "
            f"| {ten['chance']:.4f} | {hits['hit@1']['mean']:.3f} | {hits['hit@5']['mean']:.3f} "
            f"| {ten['mean']:.3f} ({ten['low']:.3f}-{ten['high']:.3f}) |"
        )
    return "\n".join(lines) + "\n"


def index_table(index: Mapping[str, Any]) -> str:
    """Return the recall of the index against exact search as Markdown."""
    lines = [
        "| side | index | queries | lists probed | re-scored | recall@10 of exact search |",
        "|---|---|---|---|---|---|",
    ]
    for name, side in sorted(index["sides"].items()):
        for kind, point in sorted(side["points"].items()):
            lines.append(
                f"| {name} | `{side['factory']}` | {kind} | {point['num_probes']} | {point['rescore_factor']} k "
                f"| {point['recall_at_10']:.3f} |"
            )
    return "\n".join(lines) + "\n"


def replace(path: Path, text: str) -> None:
    """Replace what stands between the marks of a file.

    Raises:
        ValueError: the file has no marks.
    """
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: no {BEGIN} ... {END}")
    path.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
