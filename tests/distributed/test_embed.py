"""The embedding job: equal to the serial loop, whole after any kill, and clear about what its user did wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from product_retrieval.catalog import plan_catalog
from product_retrieval.embedding_steps import PartPublisher, embed_serially
from product_retrieval.embeddings import part_name, read_manifest
from product_retrieval.encoders.hashing import HashEncoder
from product_retrieval.faults import VARIABLE
from product_retrieval.images import ImageLimits
from product_retrieval.slice_reader import SliceReader
from product_retrieval.storage import Storage

pytestmark = pytest.mark.distributed

ROWS_PER_PART = 16
NUM_PARTS = 26  # 250 products in the first file, 150 in the second: 16 + 10
HASH = ("--encoder.model", "hash", "--rows-per-part", ROWS_PER_PART)


def rows_of(output: Path) -> pa.Table:
    """Return all embedded products in the order of their ids, after checking every part against the manifest."""
    storage = Storage.at(output)
    manifest = read_manifest(storage)
    assert sorted(part.name for part in manifest.parts) == sorted(f"data/{p.name}" for p in output.glob("data/*"))
    assert all(storage.sha256(part.name) == part.sha256 for part in manifest.parts)
    return pyarrow.dataset.dataset(output / "data").to_table().sort_by("product_id")


@pytest.fixture(scope="module")
def expected(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Return what the serial loop makes of the catalogue."""
    output = tmp_path_factory.mktemp("serial")
    plan = plan_catalog(str(catalog), rows_per_part=ROWS_PER_PART)
    encoder = HashEncoder()
    publisher = PartPublisher(Storage.at(output), "serial")
    parts = embed_serially(
        SliceReader(plan, encoder, ImageLimits()),
        encoder,
        publisher,
        slices=plan.slices,
        batch_size=64,
        vector_type="float16",
    )
    assert len(parts) == NUM_PARTS
    return pyarrow.dataset.dataset(output / "data").to_table().sort_by("product_id")


def test_job_equals_serial_loop_and_a_second_run_does_nothing(
    catalog: Path, expected: pa.Table, tmp_path: Path, run_module: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    first = run_module("rayjobs.embed", "--catalog", catalog, "--output", tmp_path, *HASH)
    assert first.returncode == 0, first.stderr
    assert rows_of(tmp_path).equals(expected)
    assert expected.num_rows == 398
    rejected = pyarrow.dataset.dataset(tmp_path / "rejected").to_table().sort_by("product_id").to_pylist()
    assert [(r["product_id"], r["stage"], r["reason"]) for r in rejected] == [
        ("p007", "decode", "image_not_decodable"),
        ("p013", "read", "nothing_to_encode"),
    ]
    before = (tmp_path / "manifest.json").read_bytes()
    second = run_module("rayjobs.embed", "--catalog", catalog, "--output", tmp_path, *HASH)
    assert (second.returncode, second.stderr) == (0, "")
    assert "already complete, 398 products" in second.stdout
    assert (tmp_path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_job_shows_only_whole_parts_and_the_rerun_finishes_the_rest(
    how: signal.Signals,
    catalog: Path,
    expected: pa.Table,
    tmp_path: Path,
    run_module: Callable[..., subprocess.CompletedProcess[str]],
    start_module: Callable[..., subprocess.Popen[str]],
    wait_for_parts: Callable[..., None],
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    # No encoder survives this part, so the job is in its middle however long it takes to end.
    env = {VARIABLE: f"encode {part_name(NUM_PARTS // 2)}@{marks}@1000"}
    output = tmp_path / "output"
    process = start_module("rayjobs.embed", "--catalog", catalog, "--output", output, *HASH, env=env)
    wait_for_parts(output, process, at_least=3)
    os.kill(process.pid, how)
    _, stderr = process.communicate(timeout=60)
    if how != signal.SIGKILL:
        assert process.returncode == 130, stderr
        assert "interrupted; run the same command again" in stderr.splitlines()[-1]
    done = {path.name: path.read_bytes() for path in (output / "data").glob("*.parquet")}
    assert 3 <= len(done) < NUM_PARTS, "the job was not killed in its middle"
    assert not (output / "manifest.json").exists()
    for path in (output / "data").iterdir():
        assert pq.read_table(path).num_rows <= ROWS_PER_PART
    again = run_module("rayjobs.embed", "--catalog", catalog, "--output", output, *HASH)
    assert again.returncode == 0, again.stderr
    assert rows_of(output).equals(expected)
    assert {name: (output / "data" / name).read_bytes() for name in done} == done


def test_killed_encoder_costs_nothing(
    catalog: Path,
    expected: pa.Table,
    tmp_path: Path,
    start_module: Callable[..., subprocess.Popen[str]],
    wait_for_parts: Callable[..., None],
) -> None:
    process = start_module("rayjobs.embed", "--catalog", catalog, "--output", tmp_path, *HASH)
    wait_for_parts(tmp_path, process, at_least=2)
    encoders = [pid for pid, name in processes(process.pid) if "MapWorker(MapBatches(EncodeStep)" in name]
    assert len(encoders) == 1
    os.kill(encoders[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    assert rows_of(tmp_path).equals(expected)


def test_two_jobs_at_once_publish_each_row_once(
    catalog: Path, expected: pa.Table, tmp_path: Path, start_module: Callable[..., subprocess.Popen[str]]
) -> None:
    jobs = [start_module("rayjobs.embed", "--catalog", catalog, "--output", tmp_path, *HASH) for _ in range(2)]
    for job in jobs:
        _, stderr = job.communicate(timeout=240)
        assert job.returncode == 0, stderr
    assert rows_of(tmp_path).equals(expected)


def test_other_options_never_mix_into_an_output(
    catalog: Path, tmp_path: Path, run_module: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    arguments = ("rayjobs.embed", "--catalog", catalog, "--output", tmp_path, "--encoder.model", "hash")
    assert run_module(*arguments).returncode == 0
    other = run_module(*arguments, "--vector-type", "float32")
    assert other.returncode == 4
    assert "made with another vector_type; choose another --output" in other.stderr
    assert len(other.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--catalog", "/no/such/catalog"), 3, "no such file or folder"),
        (("--catalog", "{catalog}", "--columns.product-id", "sku"), 3, "no column 'sku'; it has product_id, title"),
        (("--catalog", "{catalog}", "--columns.text", "{{name}}"), 3, "no column 'name' for --columns.text"),
        (("--catalog", "{catalog}", "--encoder.model", "/no/model"), 5, "no such folder"),
        (("--catalog", "{catalog}", "--encoder.model", "{catalog}"), 5, "no readable config.json"),
        (("--catalog", "{catalog}", "--max-rejected", "0.001"), 3, "2 of 400 products rejected"),
        (("--catalog", "{catalog}", "--pool.max-actors", "64"), 1, "would hold all"),
        (("--catalog", "{catalog}", "--rows-per-part", "0"), 2, "must be at least 1, not 0"),
        (("--catalog", "{catalog}", "--output", "/dev/null/out"), 4, "cannot write there"),
        (("--catalog", "{catalog}", "--no-such-option"), 2, "--no-such-option"),
    ],
)
def test_mistakes_end_in_one_line_and_their_exit_code(
    arguments: tuple[str, ...],
    code: int,
    message: str,
    catalog: Path,
    tmp_path: Path,
    run_module: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    filled = [argument.format(catalog=catalog) for argument in arguments]
    output = [] if "--output" in filled else ["--output", tmp_path / "out"]
    model = [] if "--encoder.model" in filled else ["--encoder.model", "hash"]
    result = run_module("rayjobs.embed", *filled, *output, *model)
    assert result.returncode == code, result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("python -m rayjobs.embed: error: ")
    assert message in last
    assert "Traceback" not in result.stderr


def test_unreachable_ray_is_named(
    catalog: Path, tmp_path: Path, run_module: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    nowhere = {"RAY_ADDRESS": "127.0.0.1:1"}
    result = run_module("rayjobs.embed", "--catalog", catalog, "--output", tmp_path, *HASH, env=nowhere)
    assert result.returncode == 1
    assert "no Ray at RAY_ADDRESS=127.0.0.1:1" in result.stderr.splitlines()[-1]


def test_run_record_names_what_the_rows_depend_on(
    catalog: Path, tmp_path: Path, run_module: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert run_module("rayjobs.embed", "--catalog", catalog, "--output", tmp_path, *HASH).returncode == 0
    record = json.loads((tmp_path / "run.json").read_text())
    assert set(record) == {"catalog", "fetch", "fingerprint", "limits", "precision", "preparation", "vector_type"}


def test_changed_catalog_reuses_what_is_the_same_and_equals_a_full_run(
    catalog: Path, tmp_path: Path, run_module: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    old, changed = tmp_path / "old", tmp_path / "changed.parquet"
    assert run_module("rayjobs.embed", "--catalog", catalog, "--output", old, *HASH).returncode == 0
    rows = pa.concat_tables([pq.read_table(file) for file in sorted(catalog.iterdir())]).to_pylist()
    del rows[100]  # gone
    rows[200]["title"] = "now called otherwise"
    rows[201]["image"] = rows[0]["image"]  # a picture that another product has
    rows.append(rows[5] | {"product_id": "p900", "title": "new thing"})
    pq.write_table(pa.Table.from_pylist(rows[::-1]), changed)
    command = ("rayjobs.embed", "--catalog", changed, *HASH, "--output")
    dry = run_module(*command, tmp_path / "new", "--reuse", old, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "would be reused    16 pictures and 15 texts (of the same rows)" in dry.stdout
    assert "new)" in dry.stdout
    assert not (tmp_path / "new").exists()
    reusing = run_module(*command, tmp_path / "new", "--reuse", old)
    assert reusing.returncode == 0, reusing.stderr
    assert "not encoded again  397 pictures and 396 texts" in reusing.stdout
    assert run_module(*command, tmp_path / "full").returncode == 0
    assert rows_of(tmp_path / "new").equals(rows_of(tmp_path / "full"))


def test_reuse_of_what_was_made_otherwise_is_refused(
    catalog: Path, tmp_path: Path, run_module: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert run_module("rayjobs.embed", "--catalog", catalog, "--output", old, *HASH).returncode == 0
    command = ("rayjobs.embed", "--catalog", catalog, "--encoder.model", "hash", "--output")
    for arguments, code, message in [
        ((new, "--reuse", old, "--vector-type", "float32"), 4, "made with another vector_type"),
        ((new, "--reuse", tmp_path / "nowhere"), 4, "no embeddings there"),
        ((old, "--rows-per-part", "16", "--reuse", old), 2, "is the --output"),
    ]:
        result = run_module(*command, *arguments)
        assert result.returncode == code, result.stderr
        assert message in result.stderr.splitlines()[-1]
        assert not new.exists()


def test_dry_run_shows_the_plan_and_writes_nothing(
    catalog: Path, tmp_path: Path, run_module: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    result = run_module("rayjobs.embed", "--catalog", catalog, "--output", tmp_path / "out", *HASH, "--dry-run")
    assert (result.returncode, result.stderr) == (0, "")
    for line in (
        f"catalogue          {catalog}: parquet, 2 files",
        "products           400",
        "to encode          pictures and texts, text {title}",
        "attributes         title string, price double",
        "would be rejected  1 image_not_decodable, 1 nothing_to_encode (of the first 16 rows)",
        "parts              26, up to 102 kB of vectors",
        f"written to         {tmp_path}/out (new)",
    ):
        assert line in result.stdout
    assert not (tmp_path / "out").exists()


def processes(ancestor: int) -> list[tuple[int, str]]:
    """Return the id and the title of every process below one."""
    parents: dict[int, int] = {}
    titles: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            parents[int(folder.name)] = int(status[1])
            titles[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # gone meanwhile
            continue

    def is_below(pid: int) -> bool:
        while pid in parents and pid != ancestor:
            pid = parents[pid]
        return pid == ancestor

    return [(pid, titles[pid]) for pid in parents if pid != ancestor and is_below(pid)]
