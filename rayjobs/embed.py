"""Embed a product catalogue: pictures and texts to unit vectors of one space, as Parquet.

    python -m rayjobs.embed --catalog demo/household/catalog.parquet --output out/embeddings
    python -m rayjobs.embed --catalog shop.csv --output s3://bucket/shop --encoder.model openai/clip-vit-base-patch32
    ray job submit --working-dir . -- python -m rayjobs.embed --config cluster/options/embed.yaml

Reads a catalogue (docs/catalogs.md: tables, tars, saved data sets, folders of pictures). Writes data/*.parquet,
rejected/*.parquet and, last, manifest.json below --output. A job that was killed is finished by running it again.

Exit codes: 0 done, 2 options, 3 catalogue, 4 artefact, 5 encoder, 1 anything else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace

import ray

from product_retrieval.catalog import CatalogPlan, ColumnOptions, FetchOptions, Slice, plan_catalog
from product_retrieval.catalog.kinds import Kind
from product_retrieval.command import LogLevel, run
from product_retrieval.embedding_steps import PartPublisher
from product_retrieval.embeddings import (
    MANIFEST,
    Manifest,
    Part,
    VectorType,
    count_reasons,
    part_name,
    published_parts,
    read_manifest,
    read_part_record,
    sweep_rejections,
)
from product_retrieval.encoders import EncoderOptions
from product_retrieval.encoders.protocol import check_model, fingerprint_of, load_preparer
from product_retrieval.errors import CatalogError
from product_retrieval.faults import fault_point
from product_retrieval.images import ImageLimits
from product_retrieval.progress import Progress
from product_retrieval.run_identity import RunIdentity
from product_retrieval.session import ray_session
from product_retrieval.slice_reader import SliceReader
from product_retrieval.storage import Storage
from rayjobs.embed_pipeline import Encoding, run_pipeline
from rayjobs.embed_report import Planned, dry_run_report, summary
from rayjobs.encoder_pool import PoolOptions, can_grow, nodes_now, plan_pool

PROGRAM = "python -m rayjobs.embed"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """What to embed, with which model, and where to."""

    catalog: str
    """File, folder or glob of the catalogue; local or in an object store."""
    output: str
    """Folder of the embeddings; local or in an object store."""
    kind: Kind | None = None
    """What the catalogue's files are; default: by their suffix and content."""
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    image_root: str | None = None
    """Folder that image paths are relative to and cannot leave; default: the catalogue's."""
    fetch: FetchOptions = field(default_factory=FetchOptions)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    pool: PoolOptions = field(default_factory=PoolOptions)
    rows_per_part: int | None = None
    """Products in one output file, kept in memory with their pixels (1,024 of 224 x 224: 150 MB) on the way; also
    what a killed job loses at most, per worker; default: 1,024, fewer in a catalogue of less than 65,536."""
    vector_type: VectorType = "float16"
    """Element type of the stored vectors."""
    limits: ImageLimits = field(default_factory=ImageLimits)
    reuse: str | None = None
    """Earlier embeddings, finished or not: of pictures and texts that are the same there, their vectors are taken."""
    trust_references: bool = False
    """With --reuse: a picture whose path or URL is the same there is not read again, whatever is there now."""
    dry_run: bool = False
    """Check everything, read the first part, print the plan, and write nothing."""
    max_rejected: float = 0.1
    """Share of the products that may be rejected before the job fails."""
    log_level: LogLevel = "warning"
    """How much is logged to stderr."""

    def __post_init__(self) -> None:
        if self.rows_per_part is not None and self.rows_per_part < 1:
            raise ValueError(f"--rows-per-part must be at least 1, not {self.rows_per_part}")
        if not 0 <= self.max_rejected <= 1:
            raise ValueError(f"--max-rejected is a share from 0 to 1, not {self.max_rejected}")
        if self.trust_references and self.reuse is None:
            raise ValueError("--trust-references goes with --reuse")
        if self.reuse is not None and Storage.at(self.reuse) == Storage.at(self.output):
            raise ValueError(f"--reuse {self.reuse} is the --output; a killed job goes on by itself, without --reuse")


def embed(options: EmbedOptions) -> None:
    """Embed a catalogue and report; see the module's text."""
    started = time.monotonic()
    output = Storage.at(options.output)
    check_model(options.encoder)
    fingerprint = fingerprint_of(options.encoder)
    plan = plan_catalog(
        options.catalog,
        columns=options.columns,
        kind=options.kind,
        image_root=options.image_root,
        rows_per_part=options.rows_per_part,
        fetch=options.fetch,
    )
    identity = RunIdentity.of(
        plan, fingerprint, encoder=options.encoder, limits=options.limits, vector_type=options.vector_type
    )
    identity.check(output)
    if output.exists(MANIFEST) and not options.dry_run:
        finished = read_manifest(output)
        print(f"{output.uri}: already complete, {finished.num_products:,} products; nothing to do")
        return
    reader = SliceReader(
        replace(plan, slices=()),  # a reading task travels with its own slice, not with all of them
        load_preparer(options.encoder),
        options.limits,
        identity.earlier_vectors(options.reuse, trust_references=options.trust_references),
    )
    if options.dry_run:
        planned = Planned(
            plan=plan,
            model=options.encoder.model,
            fingerprint=fingerprint,
            vector_type=options.vector_type,
            output=output,
        )
        print(dry_run_report(planned, reader))
        return
    output.check_atomic()
    identity.claim(output)
    todo = slices_to_do(plan, output)
    published: dict[str, Part] = {}
    if todo:
        with ray_session(ray):
            publisher = PartPublisher(output, identity.id)
            published = encode_slices(options, reader, publisher, slices=todo, num_products=plan.num_products)
    encoded = time.monotonic()
    manifest = finish(options, plan, output, identity, published)
    print(summary(manifest, output, todo, encoding_s=encoded - started, total_s=time.monotonic() - started))


def slices_to_do(plan: CatalogPlan, output: Storage) -> list[Slice]:
    """Return the slices whose part is not published yet."""
    done = published_parts(output)
    return [slice_ for slice_ in plan.slices if part_name(slice_.part) not in done]


def encode_slices(
    options: EmbedOptions,
    reader: SliceReader,
    publisher: PartPublisher,
    *,
    slices: Sequence[Slice],
    num_products: int,
) -> dict[str, Part]:
    """Run the pipeline on the connected cluster.

    Args:
        options: of the job.
        reader: of the catalogue.
        publisher: of the output.
        slices: those whose part is missing.
        num_products: of the whole catalogue.

    Returns:
        The parts that are published now, by name.

    Raises:
        CatalogError: a file is broken, or too many products are rejected.
        ClusterError: the encoders cannot be scheduled.
    """
    pool = plan_pool(
        options.pool,
        num_slices=len(slices),
        use_gpu=options.encoder.device != "cpu",
        nodes=nodes_now(),
        may_grow=can_grow(),
    )
    encoding = Encoding(options.encoder, options.vector_type)
    limit = RejectionLimit(options.max_rejected, num_products)
    num_todo = sum(slice_.num_rows for slice_ in slices)
    parts: dict[str, Part] = {}
    with Progress("embed", num_products, unit="products", done=num_products - num_todo) as progress:
        for part in run_pipeline(slices, reader, encoding, publisher, pool):
            fault_point(f"collected {part.name}")
            parts[part.name] = part
            progress.advance(part.num_products + part.num_rejected)
            limit.count(part.num_rejected, publisher.storage)
    return parts


class RejectionLimit:
    """Stops the job when more products were rejected than its user accepts."""

    def __init__(self, share: float, num_products: int) -> None:
        """Allow this share of the products."""
        self._share, self._num_products, self._count = share, num_products, 0

    def count(self, num_rejected: int, storage: Storage) -> None:
        """Count rejected products.

        Raises:
            CatalogError: too many.
        """
        self._count += num_rejected
        if self._count > self._share * self._num_products:
            raise CatalogError(
                f"{self._count:,} of {self._num_products:,} products rejected, more than --max-rejected "
                f"{self._share:g} allows; {storage.path('rejected')} says why; "
                "run again with a larger share to go on"
            )


def finish(
    options: EmbedOptions,
    plan: CatalogPlan,
    output: Storage,
    identity: RunIdentity,
    published: Mapping[str, Part],
) -> Manifest:
    """Check that every part is there and publish the manifest.

    Args:
        options: of the job.
        plan: of the catalogue.
        output: the embeddings' folder.
        identity: what the parts are made of.
        published: parts that this job published; those of an earlier one are read again.

    Raises:
        CatalogError: too many products were rejected, or none is left.
        ArtifactError: a part is damaged or of another run.
    """

    def record(name: str) -> Part:
        return published[name] if name in published else read_part_record(output, name, identity.id)

    with ThreadPoolExecutor() as threads:  # waits for hashing, which releases the interpreter lock
        parts = tuple(threads.map(record, [part_name(slice_.part) for slice_ in plan.slices]))
    RejectionLimit(options.max_rejected, plan.num_products).count(sum(p.num_rejected for p in parts), output)
    manifest = Manifest(
        run_id=identity.id,
        fingerprint=identity.fingerprint,
        model=options.encoder.model,
        vector_type=options.vector_type,
        options=asdict(options),
        catalog={
            "uri": plan.uri,
            "kind": plan.kind,
            "root": plan.root,
            "image_root": plan.image_root,
            "image_column": plan.columns.image,
            "fingerprint": plan.fingerprint,
            "num_products": plan.num_products,
            "text": plan.text_template,
        },
        parts=parts,
        rejected_by_reason=count_reasons(output, parts),
    )
    if not manifest.num_products:
        raise CatalogError(f"{plan.uri}: every product was rejected; {output.path('rejected')} says why")
    sweep_rejections(output, parts)
    output.clear_staging()
    output.put_if_absent(MANIFEST, manifest.to_bytes())
    return read_manifest(output)


def main() -> int:
    """Run the command."""
    return run(embed, EmbedOptions, program=PROGRAM, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
