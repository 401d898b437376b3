"""Embed a product catalogue: pictures and texts to unit vectors of one space, as Parquet.

    python -m rayjobs.embed --catalog demo/household/catalog.parquet --output out/embeddings
    python -m rayjobs.embed --catalog shop.csv --output s3://bucket/shop --encoder.model openai/clip-vit-base-patch32
    ray job submit --working-dir . -- python -m rayjobs.embed --config cluster/options/embed.yaml

Reads a catalogue (Parquet, CSV, JSON lines, or a folder of pictures with sidecar texts). Writes data/*.parquet,
rejected/*.parquet and, last, manifest.json below --output. A job that was killed is finished by running it again.

Exit codes: 0 done, 2 options, 3 catalogue, 4 artefact, 5 encoder, 1 anything else.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

import ray
from ray.data import ActorPoolStrategy, DataContext

from product_retrieval.catalog import CatalogPlan, ColumnOptions, FetchOptions, Slice, plan_catalog
from product_retrieval.catalog.source import Kind
from product_retrieval.command import LogLevel, run
from product_retrieval.embedding_steps import PartPublisher, SliceReader, encode_table, table_from_bytes, table_to_bytes
from product_retrieval.embeddings import (
    MANIFEST,
    RUN,
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
from product_retrieval.encoders import EncoderOptions, Fingerprint, load_encoder
from product_retrieval.encoders.protocol import fingerprint_of, load_preparer
from product_retrieval.errors import ArtifactError, CatalogError
from product_retrieval.images import ImageLimits
from product_retrieval.progress import Progress, format_duration, format_table
from product_retrieval.session import ray_session
from product_retrieval.storage import Storage
from rayjobs.encoder_pool import plan_pool

PROGRAM = "python -m rayjobs.embed"
READ_CPUS = 0.5
"""Logical CPUs of a reading task: not the encoder's, so that Ray Data keeps the two apart and they overlap."""
PUBLISH_CPUS = 0.25
NO_PROGRESS_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """What to embed, with which model, and where to."""

    catalog: str
    """File, folder or glob of the catalogue; local or in an object store."""
    output: str
    """Folder of the embeddings; local or in an object store."""
    kind: Kind | None = None
    """What the catalogue's files are; default: by their suffix."""
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    image_root: str | None = None
    """Folder that image paths are relative to and cannot leave; default: the catalogue's."""
    fetch: FetchOptions = field(default_factory=FetchOptions)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    num_actors: int | None = None
    """Encoder processes; default: one a GPU, or one for every two CPUs."""
    rows_per_part: int = 1024
    """Products in one output file, kept in memory with their pixels (1,024 of 224 x 224: 150 MB) on the way; also
    what a killed job loses at most, per worker."""
    vector_type: VectorType = "float16"
    """Element type of the stored vectors."""
    limits: ImageLimits = field(default_factory=ImageLimits)
    max_rejected: float = 0.1
    """Share of the products that may be rejected before the job fails."""
    log_level: LogLevel = "warning"
    """How much is logged to stderr."""

    def __post_init__(self) -> None:
        if self.rows_per_part < 1:
            raise ValueError(f"--rows-per-part must be at least 1, not {self.rows_per_part}")
        if not 0 <= self.max_rejected <= 1:
            raise ValueError(f"--max-rejected is a share from 0 to 1, not {self.max_rejected}")
        if self.num_actors is not None and self.num_actors < 1:
            raise ValueError(f"--num-actors must be at least 1, not {self.num_actors}")


def embed(options: EmbedOptions) -> None:
    """Embed a catalogue and report; see the module's text."""
    started = time.monotonic()
    storage = Storage.at(options.output)
    fingerprint = fingerprint_of(options.encoder)
    plan = plan_catalog(
        options.catalog,
        columns=options.columns,
        kind=options.kind,
        image_root=options.image_root,
        rows_per_part=options.rows_per_part,
        fetch=options.fetch,
    )
    run_record = describe_run(options, plan, fingerprint)
    run_id = hashlib.sha256(run_record).hexdigest()[:16]
    finished = find_finished(storage, run_record)
    if finished is not None:
        print(f"{storage.uri}: already complete, {finished.num_products:,} products; nothing to do")
        return
    done = published_parts(storage)
    todo = [slice_ for slice_ in plan.slices if part_name(slice_.part) not in done]
    published: dict[str, Part] = {}
    if todo:
        with ray_session(ray):
            published = encode_slices(options, plan, todo, storage, run_id)
    encoded = time.monotonic()
    manifest = finish(options, plan, storage, run_id, fingerprint, published)
    print(summary(manifest, storage, todo, encoding_s=encoded - started, total_s=time.monotonic() - started))


def describe_run(options: EmbedOptions, plan: CatalogPlan, fingerprint: Fingerprint) -> bytes:
    """Return, as canonical JSON, everything the output rows depend on."""
    record = {
        "catalog": plan.fingerprint,
        "fetch": plan.fetch.allowing,
        "fingerprint": asdict(fingerprint),
        "limits": asdict(options.limits),
        "precision": options.encoder.precision,
        "vector_type": options.vector_type,
    }
    return (json.dumps(record, sort_keys=True, indent=1) + "\n").encode()


def find_finished(storage: Storage, run_record: bytes) -> Manifest | None:
    """Claim the output folder for this run, and return the manifest if the run is already complete.

    Raises:
        ArtifactError: the folder holds embeddings of something else.
    """
    if not storage.put_if_absent(RUN, run_record) and storage.read(RUN) != run_record:
        theirs, ours = json.loads(storage.read(RUN)), json.loads(run_record)
        differing = ", ".join(sorted(name for name in ours if ours[name] != theirs.get(name)))
        raise ArtifactError(
            f"{storage.uri}: holds embeddings made with another {differing}; "
            "choose another --output or delete that one",
            path=storage.uri,
        )
    return read_manifest(storage) if storage.exists(MANIFEST) else None


def encode_slices(
    options: EmbedOptions, plan: CatalogPlan, slices: Sequence[Slice], storage: Storage, run_id: str
) -> dict[str, Part]:
    """Run the Ray Data pipeline: read and prepare on CPU workers, encode on actors, publish parts.

    Returns:
        The parts that are published now, by name.

    Raises:
        CatalogError: a file is broken, or too many products are rejected.
        ClusterError: the encoders cannot be scheduled.
    """
    pool = plan_pool(options.num_actors, num_slices=len(slices), use_gpu=options.encoder.device != "cpu")
    publisher = PartPublisher(storage, run_id, {slice_.part: slice_.num_rows for slice_ in plan.slices})
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_TIMEOUT_S
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is told once, by the command
    # A row of the data set is a whole part from its reader to its publisher: Ray Data cuts and joins blocks of rows.
    published = (
        ray.data.from_items([{"slice": pickle.dumps(s)} for s in slices], override_num_blocks=len(slices))
        .map(ReadStep(SliceReader(plan, load_preparer(options.encoder), options.limits)), num_cpus=READ_CPUS)
        .map(
            EncodeStep,
            fn_constructor_args=(options.encoder, options.vector_type, pool.threads_per_actor),
            compute=ActorPoolStrategy(size=pool.num_actors),
            num_cpus=1,
            num_gpus=pool.gpus_per_actor,
        )
        .map(PublishStep(publisher), num_cpus=PUBLISH_CPUS)
    )
    limit = RejectionLimit(options.max_rejected, plan.num_products)
    total = sum(slice_.num_rows for slice_ in slices)
    parts: dict[str, Part] = {}
    with Progress("embed", plan.num_products, unit="products", done=plan.num_products - total) as progress:
        for row in published.iter_rows():
            part: Part = pickle.loads(row["part"])
            parts[part.name] = part
            progress.advance(part.num_products + part.num_rejected)
            limit.count(part.num_rejected, storage)
    return parts


@dataclass(frozen=True, slots=True)
class ReadStep:
    """Ray Data's face of SliceReader: a slice in, the table of its rows out."""

    reader: SliceReader

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        """Read a slice."""
        return {"table": table_to_bytes(self.reader(pickle.loads(row["slice"])))}


class EncodeStep:
    """An actor that holds the model."""

    def __init__(self, options: EncoderOptions, vector_type: VectorType, num_threads: int | None) -> None:
        """Load the model."""
        self._encoder = load_encoder(options)
        self._batch_size = options.batch_size
        self._vector_type: VectorType = vector_type
        if num_threads is not None:
            self._encoder.limit_threads(num_threads)

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        """Encode the rows of a part."""
        table = table_from_bytes(row["table"])
        encoded = encode_table(table, self._encoder, batch_size=self._batch_size, vector_type=self._vector_type)
        return {"table": table_to_bytes(encoded)}


@dataclass(frozen=True, slots=True)
class PublishStep:
    """Ray Data's face of PartPublisher: an encoded part in, its record out."""

    publisher: PartPublisher

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        """Publish a part."""
        return {"part": pickle.dumps(self.publisher(table_from_bytes(row["table"])))}


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
    storage: Storage,
    run_id: str,
    fingerprint: Fingerprint,
    published: Mapping[str, Part],
) -> Manifest:
    """Check that every part is there and publish the manifest.

    Args:
        options: of the job.
        plan: of the catalogue.
        storage: the embeddings' folder.
        run_id: what the parts are made of.
        fingerprint: of the encoder.
        published: parts that this job published; those of an earlier one are read again.

    Raises:
        CatalogError: too many products were rejected, or none is left.
        ArtifactError: a part is damaged or of another run.
    """

    def record(name: str) -> Part:
        return published[name] if name in published else read_part_record(storage, name, run_id)

    with ThreadPoolExecutor() as threads:  # waits for hashing, which releases the interpreter lock
        parts = tuple(threads.map(record, [part_name(slice_.part) for slice_ in plan.slices]))
    RejectionLimit(options.max_rejected, plan.num_products).count(sum(p.num_rejected for p in parts), storage)
    manifest = Manifest(
        run_id=run_id,
        fingerprint=fingerprint,
        model=options.encoder.model,
        vector_type=options.vector_type,
        options=asdict(options),
        catalog={
            "uri": plan.uri,
            "kind": plan.kind,
            "image_root": plan.image_root,
            "image_column": plan.columns.image,
            "fingerprint": plan.fingerprint,
            "num_products": plan.num_products,
            "text": plan.text_template,
        },
        parts=parts,
        rejected_by_reason=count_reasons(storage, parts),
    )
    if not manifest.num_products:
        raise CatalogError(f"{plan.uri}: every product was rejected; {storage.path('rejected')} says why")
    sweep_rejections(storage, parts)
    storage.clear_staging()
    storage.put_if_absent(MANIFEST, manifest.to_bytes())
    return read_manifest(storage)


def summary(manifest: Manifest, storage: Storage, todo: Sequence[Slice], *, encoding_s: float, total_s: float) -> str:
    """Return the closing table of the job."""
    encoded = sum(slice_.num_rows for slice_ in todo)
    reused = len(manifest.parts) - len(todo)
    rate = f", {encoded / encoding_s:,.0f} products/s with start-up" if encoded else ""
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in manifest.rejected_by_reason.items())
    return format_table(
        [
            ("products", f"{manifest.num_products:,}"),
            ("rejected", f"{manifest.num_rejected:,}" + (f" ({rejected})" if rejected else "")),
            ("vectors", f"{manifest.fingerprint.dim} x {manifest.vector_type}, model {manifest.model}"),
            ("parts", f"{len(manifest.parts):,}" + (f" ({reused:,} from an earlier run)" if reused else "")),
            ("time", f"{format_duration(total_s)}{rate}"),
            ("written to", storage.uri),
        ]
    )


def main() -> int:
    """Run the command."""
    return run(embed, EmbedOptions, program=PROGRAM, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
