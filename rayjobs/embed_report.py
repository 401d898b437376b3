"""What the embedding job prints: its plan before it starts, and what it did at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from product_retrieval.catalog import CatalogPlan, Slice
from product_retrieval.embeddings import MANIFEST, Manifest, VectorType, published_parts
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.progress import format_duration, format_size, format_table
from product_retrieval.slice_reader import SliceReader, count_earlier, rejections_in
from product_retrieval.storage import Storage

BYTES_PER_ELEMENT = {"float16": 2, "float32": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A job that has not started."""

    plan: CatalogPlan
    model: str
    fingerprint: Fingerprint
    vector_type: VectorType
    output: Storage


def dry_run_report(planned: Planned, reader: SliceReader) -> str:
    """Read the first part of a catalogue and return the table that tells what the job would do.

    Args:
        planned: the job.
        reader: of its catalogue; nothing is encoded.
    """
    plan, dim = planned.plan, planned.fingerprint.dim
    head = plan.slices[0]
    table = reader(head)
    reasons = Counter(rejection.reason for rejection in rejections_in(table))
    reused = [f"{count_earlier(table, side):,} {what}" for side, what in (("image", "pictures"), ("text", "texts"))]
    attributes = [f"{name} {plan.schema.field(name).type}" for name in plan.attribute_names]
    files = "1 file" if plan.num_files == 1 else f"{plan.num_files:,} files"
    bad = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common()) or "none"
    sides = [name for name, there in (("pictures", plan.has_image), ("texts", plan.text_template is not None)) if there]
    num_repeated = sum(len(slice_.repeated) for slice_ in plan.slices)
    size = plan.num_products * len(sides) * dim * BYTES_PER_ELEMENT[planned.vector_type]
    rows = [
        ("catalogue", f"{plan.uri}: {plan.kind}, {files}, {format_size(plan.size_bytes)}"),
        ("products", f"{plan.num_products:,}" + (f", {num_repeated:,} with a repeated id" if num_repeated else "")),
        ("to encode", " and ".join(sides) + (f", text {plan.text_template}" if plan.text_template else "")),
        ("attributes", ", ".join(attributes) or "none"),
        ("would be rejected", f"{bad} (of the first {head.num_rows:,} rows)"),
        ("would be reused", f"{' and '.join(reused)} (of the same rows)" if reader.earlier is not None else ""),
        ("model", f"{planned.model}, {planned.fingerprint.family}, {dim} x {planned.vector_type}"),
        ("parts", f"{len(plan.slices):,}, up to {format_size(size)} of vectors"),
        ("written to", f"{planned.output.uri} ({state_of(planned.output)})"),
    ]
    return format_table([(name, value) for name, value in rows if value])


def state_of(output: Storage) -> str:
    """Say how far an output folder is."""
    if output.exists(MANIFEST):
        return "complete: nothing to do"
    num_parts = len(published_parts(output))
    return f"{num_parts:,} parts are there already" if num_parts else "new"


def summary(manifest: Manifest, output: Storage, todo: Sequence[Slice], *, encoding_s: float, total_s: float) -> str:
    """Return the closing table of the job.

    Args:
        manifest: of the embeddings.
        output: their folder.
        todo: slices that this job embedded itself.
        encoding_s: seconds from the start to the last part.
        total_s: seconds of the whole job.
    """
    encoded = sum(slice_.num_rows for slice_ in todo)
    from_before = len(manifest.parts) - len(todo)
    rate = f", {encoded / encoding_s:,.0f} products/s with start-up" if encoded else ""
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in manifest.rejected_by_reason.items())
    reused = [
        f"{count:,} {what}"
        for what, count in (
            ("pictures", sum(part.num_reused_images for part in manifest.parts)),
            ("texts", sum(part.num_reused_texts for part in manifest.parts)),
        )
        if count
    ]
    rows = [
        ("products", f"{manifest.num_products:,}"),
        ("rejected", f"{manifest.num_rejected:,}" + (f" ({rejected})" if rejected else "")),
        ("vectors", f"{manifest.fingerprint.dim} x {manifest.vector_type}, model {manifest.model}"),
        ("parts", f"{len(manifest.parts):,}" + (f" ({from_before:,} from an earlier run)" if from_before else "")),
        ("not encoded again", " and ".join(reused)),
        ("time", f"{format_duration(total_s)}{rate}"),
        ("written to", output.uri),
    ]
    return format_table([(name, value) for name, value in rows if value])
