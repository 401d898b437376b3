"""The same artefacts in an object store: a real S3 server on the loopback, spoken to by s3fs."""

from __future__ import annotations

import gzip
import io
import tarfile
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from product_retrieval.catalog import plan_catalog, read_slice
from product_retrieval.catalog.rejections import Rejection
from product_retrieval.clip_folder import ClipFolderOptions
from product_retrieval.embeddings import (
    EncodedProducts,
    Manifest,
    count_reasons,
    iterate_parts,
    publish_part,
    published_parts,
    read_manifest,
    read_part,
    vector_array,
    vectors_of,
)
from product_retrieval.encoders.hashing import HashEncoder
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError, CatalogError
from product_retrieval.index import IndexManifest, open_index
from product_retrieval.index.construction import fill, train
from product_retrieval.index.manifest import Shard, ShardSide, SideManifest, describe_file
from product_retrieval.index.retention import Garbage, collect, find_garbage
from product_retrieval.index.spec import EXACT, IndexSpec
from product_retrieval.index.versions import (
    current_version,
    promote,
    publish,
    versions,
)
from product_retrieval.pictures import load_picture
from product_retrieval.storage import Storage, to_buffer
from rayjobs.clip_source import embeddings_to_index

VECTORS = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Start an S3 server on a free port of this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Point every S3 client of this process at the server; return one that s3fs knows nothing of."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    return boto3.client("s3")


@pytest.fixture
def storage(client: Any) -> Storage:
    """Return a folder of a bucket of its own."""
    bucket = f"shop-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    return Storage.at(f"s3://{bucket}/index")


def bucket_of(storage: Storage) -> str:
    return storage.uri.removeprefix("s3://").split("/")[0]


def put_from_elsewhere(client: Any, storage: Storage, name: str, data: bytes) -> None:
    """Write an object as another process would."""
    client.put_object(Bucket=bucket_of(storage), Key=f"index/{name}", Body=data)


def test_put_if_absent_puts_once_only(storage: Storage) -> None:
    assert storage.put_if_absent("data/part", b"first") is True
    assert storage.put_if_absent("data/part", b"second") is False
    assert storage.read("data/part") == b"first"


def test_put_if_absent_loses_to_another_process(client: Any, storage: Storage) -> None:
    assert storage.exists("part") is False
    put_from_elsewhere(client, storage, "part", b"theirs")
    assert storage.put_if_absent("part", b"ours") is False
    assert storage.read("part") == b"theirs"


def test_new_file_is_published_once_and_whole(storage: Storage) -> None:
    for content in (b"first", b"second"):
        with storage.new_file("shard/image.faiss") as path:
            path.write_bytes(content)
    assert storage.read("shard/image.faiss") == b"first"
    with pytest.raises(ValueError, match="broken"), storage.new_file("other") as path:
        raise ValueError("broken")
    assert not storage.exists("other")


def test_files_below_a_folder_have_names_sizes_and_times(storage: Storage) -> None:
    assert storage.files_below("builds") == []
    for name in ("builds/a/one", "builds/b/c/two", "versions/three"):
        storage.put_if_absent(name, b"12345")
    found = storage.files_below("builds")
    assert [(name, size) for name, size, _ in found] == [("builds/a/one", 5), ("builds/b/c/two", 5)]
    assert all(changed > 1.6e9 for _, _, changed in found)


def test_put_into_a_bucket_that_is_not_there_is_an_artifact_error(client: Any) -> None:
    assert client is not None
    with pytest.raises(ArtifactError, match="s3://no-such-bucket/index/part: cannot write"):
        Storage.at("s3://no-such-bucket/index").put_if_absent("part", b"x")


def test_swap_replaces_only_what_was_expected(storage: Storage) -> None:
    assert storage.swap("alias", b"1", expected=None) is True
    assert storage.swap("alias", b"2", expected=None) is False
    assert storage.swap("alias", b"2", expected=b"1") is True
    assert storage.swap("alias", b"3", expected=b"1") is False
    assert storage.read("alias") == b"2"


def test_swap_loses_to_another_process(client: Any, storage: Storage) -> None:
    storage.put_if_absent("alias", b"1")
    assert storage.read("alias") == b"1"
    put_from_elsewhere(client, storage, "alias", b"theirs")
    assert storage.swap("alias", b"ours", expected=b"1") is False
    assert storage.read("alias") == b"theirs"


def test_conditional_write_with_a_stale_tag_is_refused_by_the_store(storage: Storage) -> None:
    storage.put_if_absent("alias", b"1")
    file_system = s3fs.S3FileSystem()
    stale = file_system.info(storage.path("alias"))["ETag"]
    storage.swap("alias", b"2", expected=b"1")
    with pytest.raises(OSError, match=r"(?i)pre-?condition"):
        file_system.pipe_file(storage.path("alias"), b"3", IfMatch=stale)
    assert storage.read("alias") == b"2"


def test_files_of_another_process_are_seen_after_a_listing(client: Any, storage: Storage) -> None:
    storage.put_if_absent("versions/000001.json", b"1")
    assert storage.names("versions") == ["000001.json"]
    put_from_elsewhere(client, storage, "versions/000002.json", b"22")
    assert storage.exists("versions/000002.json") is True
    assert storage.size_bytes("versions/000002.json") == 2
    assert storage.names("versions") == ["000001.json", "000002.json"]


def test_folder_that_is_not_there_has_no_names(storage: Storage) -> None:
    assert storage.names("versions") == []
    assert storage.exists("versions") is False


@pytest.mark.parametrize("read", [Storage.read, Storage.open, Storage.sha256])
def test_missing_object_is_an_artifact_error(storage: Storage, read: Any) -> None:
    with pytest.raises(ArtifactError, match="nothing: no such file"):
        read(storage, "nothing")


def test_delete_twice_is_fine(storage: Storage) -> None:
    storage.put_if_absent("a", b"1")
    storage.delete("a")
    storage.delete("a")
    assert storage.exists("a") is False


def test_catalogue_and_its_pictures_are_read_from_the_store(storage: Storage, png: Any) -> None:
    storage.put_if_absent("shop/a.csv", b"product_id,title,image\n1,mug,pictures/mug.png\n2,cup,pictures/gone.png\n")
    storage.put_if_absent("shop/pictures/mug.png", png())
    for uri in (storage.path("shop/a.csv"), storage.path("shop"), storage.path("shop/*.csv")):
        plan = plan_catalog(uri)
        read = read_slice(plan, plan.slices[0])
        assert read.table.column("product_id").to_pylist() == ["1"]
        assert read.table.column("__image").to_pylist() == [png()]
        assert [(r.product_id, r.reason) for r in read.rejections] == [("2", "image_not_found")]


def test_archives_and_arrow_files_are_read_from_the_store(storage: Storage, png: Any) -> None:
    def tar(key: str) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in ((f"{key}.png", png()), (f"{key}.txt", key.encode()), ("gone.txt", b"")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return buffer.getvalue()

    sink = pa.BufferOutputStream()
    table = pa.table({"product_id": ["mug", "cup"], "image": [{"bytes": png(), "path": ""}] * 2})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    storage.put_if_absent("tars/a.tar", tar("mug"))
    storage.put_if_absent("tars/b.tar.gz", gzip.compress(tar("cup")))
    storage.put_if_absent("saved/data-0.arrow", sink.getvalue().to_pybytes())
    storage.put_if_absent("saved/state.json", b'{"_data_files": [{"filename": "data-0.arrow"}]}')
    for name in ("tars", "saved"):
        plan = plan_catalog(storage.path(name), rows_per_part=1)
        rows = [row for slice_ in plan.slices for row in read_slice(plan, slice_).table.to_pylist()]
        with_picture = [row for row in rows if row["__image"]]
        assert [row["product_id"] for row in with_picture] == ["mug", "cup"]
        assert [load_picture(plan.image_root, row["image_ref"]) for row in with_picture] == [png(), png()]


def test_cut_off_archive_in_the_store_is_an_error(storage: Storage) -> None:
    member = tarfile.TarInfo("a.png")
    member.size = 5000
    storage.put_if_absent("a.tar", member.tobuf() + bytes(1000))
    with pytest.raises(CatalogError, match="cut off at byte"):
        plan_catalog(storage.path("a.tar"))


@pytest.mark.parametrize("name", ["nothing", "nothing/*.csv"])
def test_catalogue_that_is_not_in_the_store_is_an_error(storage: Storage, name: str) -> None:
    with pytest.raises(CatalogError, match="no such file or folder"):
        plan_catalog(storage.path(name))


def test_embeddings_are_written_once_and_read_back(storage: Storage) -> None:
    table = pa.table(
        {
            "product_id": ["mug", "cup", "jug"],
            "image_vector": vector_array(VECTORS, np.ones(3, bool), "float16"),
        }
    )
    encoded = EncodedProducts(0, table, (Rejection("shop.csv:3", "read", "missing_id"),))
    part = publish_part(storage, "run", encoded)
    assert publish_part(storage, "run", EncodedProducts(0, table.slice(1))) == part
    with pytest.raises(ArtifactError, match="belongs to another run"):
        publish_part(storage, "other", encoded)
    fingerprint = Fingerprint("hash", "", "", "sum", 2)
    manifest = Manifest("run", fingerprint, "hash", "float16", {}, {}, (part,), count_reasons(storage, [part]))
    storage.put_if_absent("manifest.json", manifest.to_bytes())
    assert published_parts(storage) == {part.name}
    assert read_manifest(storage) == manifest
    assert manifest.rejected_by_reason == {"missing_id": 1}
    assert read_part(storage, part).column("product_id").to_pylist() == ["mug", "cup", "jug"]


def test_replaced_part_is_refused(client: Any, storage: Storage) -> None:
    table = pa.table({"image_vector": vector_array(VECTORS, np.ones(3, bool), "float16")})
    part = publish_part(storage, "run", EncodedProducts(0, table))
    put_from_elsewhere(client, storage, part.name, bytes(part.size_bytes))
    with pytest.raises(ArtifactError, match="SHA-256 differs"):
        read_part(storage, part)


def write_index(storage: Storage) -> IndexManifest:
    """Write the files of an index of three products and return its manifest."""
    products = pa.table({"product_id": ["mug", "cup", "jug"]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, products.schema) as writer:
        writer.write_table(products)
    trained_flat = train(VECTORS, IndexSpec("Flat", ""), seed=0)
    contents = {
        "image.faiss": fill(trained_flat, VECTORS, np.arange(3)),
        "vectors.npy": to_buffer(lambda file: np.save(file, VECTORS.astype(np.float16))),
        "products.arrow": sink.getvalue().to_pybytes(),
        "rows_by_id.npy": to_buffer(lambda file: np.save(file, np.array([1, 2, 0]))),
        "keys.npy": to_buffer(lambda file: np.save(file, np.zeros((3, 32), np.uint8))),
        "trained.faiss": trained_flat,
    }
    for name, data in contents.items():
        storage.put_if_absent(f"builds/b/{name}", data)
    faiss_file, vectors, arrow, order, keys, trained = (describe_file(storage, f"builds/b/{name}") for name in contents)
    shard = Shard(0, 3, arrow, order, keys, {"image": ShardSide(faiss_file, vectors, 3)})
    return IndexManifest(
        build_id="b",
        fingerprint=Fingerprint("hash", "", "", "sum", 2),
        model="hash",
        embeddings_uri="s3://shop/embeddings",
        embeddings_run_id="run",
        catalog={},
        num_products=3,
        dim=2,
        options={},
        sides={"image": SideManifest("Flat", "few", 3, trained, {"image": EXACT, "text": EXACT})},
        shards=(shard,),
    )


def test_index_is_published_promoted_and_opened(storage: Storage) -> None:
    manifest = write_index(storage)
    assert [publish(storage, manifest).version for _ in range(2)] == [1, 2]
    promote(storage, 1)
    promote(storage, 2)
    assert (versions(storage), current_version(storage)) == ([1, 2], 2)
    index, opened = open_index(storage)
    assert opened.version == index.version == 2
    hits = index.search(np.array([[0, 1]], np.float32), against="image", k=2)
    assert hits.rows.tolist() == [[2, 1]]
    assert index.row_of("cup") == 1


@pytest.mark.parametrize("name", ["image.faiss", "vectors.npy", "products.arrow", "rows_by_id.npy"])
def test_damaged_object_is_refused(client: Any, storage: Storage, name: str) -> None:
    publish(storage, write_index(storage))
    damaged = bytearray(storage.read(f"builds/b/{name}"))
    damaged[-1] ^= 1
    put_from_elsewhere(client, storage, f"builds/b/{name}", bytes(damaged))
    with pytest.raises(ArtifactError, match=f"builds/b/{name}: SHA-256 differs from the manifest"):
        open_index(storage, 1)


def test_versions_that_nobody_needs_are_cleaned_up(storage: Storage) -> None:
    manifest = write_index(storage)
    for _ in range(2):
        promote(storage, publish(storage, manifest).version)
    storage.put_if_absent("builds/dead/piece", b"x")
    garbage = find_garbage(storage, keep=1, min_age_s=0, now_s=4e9)
    assert garbage == Garbage((1,), ("builds/dead/piece",), 1)
    collect(storage, garbage, keep=1, min_age_s=0, now_s=4e9)
    assert (versions(storage), storage.exists("builds/dead/piece")) == ([2], False)
    assert open_index(storage)[1].version == 2


def test_folder_of_clip_retrieval_is_read_from_the_store(storage: Storage) -> None:
    encoder, captions = HashEncoder(), ["red mug", "blue cup"]
    source, table = storage.sub("clip"), pa.table({"caption": captions})
    vectors = encoder.encode_texts(captions).astype(np.float16)
    source.put_if_absent("text_emb/text_emb_0.npy", to_buffer(lambda file: np.save(file, vectors)))
    source.put_if_absent("metadata/metadata_0.parquet", to_buffer(lambda file: pq.write_table(table, file)))
    found = embeddings_to_index(source, ClipFolderOptions(model="hash"), storage.sub("out"))
    (rows,) = iterate_parts(found, read_manifest(found))
    assert found.uri.startswith(storage.uri)
    assert rows.column("text").to_pylist() == captions
    np.testing.assert_allclose(vectors_of(rows, "text_vector")[0], vectors, atol=1e-3)
