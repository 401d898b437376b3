"""Where build_index finds its embeddings when it is given a folder of clip-retrieval: beside the index, made once."""

from __future__ import annotations

from product_retrieval.clip_folder import ClipFolderOptions, is_clip_folder, open_clip_folder
from product_retrieval.clip_import import check_made_by, import_folder
from product_retrieval.embeddings import MANIFEST
from product_retrieval.encoders import EncoderOptions, load_encoder
from product_retrieval.encoders.protocol import fingerprint_of
from product_retrieval.errors import OptionsError
from product_retrieval.storage import Storage


def embeddings_to_index(source: Storage, options: ClipFolderOptions, output: Storage) -> Storage:
    """Return a folder of embeddings: the source itself, or what is made of it where clip-retrieval wrote it.

    Args:
        source: what --embeddings names.
        options: what a folder of clip-retrieval does not say of itself.
        output: of the index; embeddings made from the source appear below its `imported/`.

    Raises:
        OptionsError: the model is not named.
        EncoderError: there is no such model, or it did not make the vectors.
        ArtifactError: the source cannot be used.
    """
    if not is_clip_folder(source):
        return source
    if options.model is None:
        raise OptionsError(
            f"{source.uri}: clip-retrieval does not say which model made its vectors; name it with "
            "--clip-retrieval.model, such as openai/clip-vit-base-patch32 for ViT-B/32"
        )
    encoder_options = EncoderOptions(model=options.model, revision=options.revision)
    fingerprint = fingerprint_of(encoder_options)
    folder = open_clip_folder(source, options, fingerprint)
    imported = output.sub(f"imported/{folder.run_id}")
    if not imported.exists(MANIFEST):
        imported.check_atomic()
        num_checked = check_made_by(folder, load_encoder(encoder_options))
        manifest = import_folder(folder, imported, fingerprint, num_checked=num_checked)
        checked = f"{num_checked} captions encoded again" if num_checked else "nothing: it has no captions with vectors"
        rejected = ", ".join(f"{count:,} {reason}" for reason, count in manifest.rejected_by_reason.items())
        print(
            f"{source.uri}: {manifest.num_products:,} products of clip-retrieval, "
            f"{manifest.num_rejected:,} rejected{f' ({rejected})' if rejected else ''}; model checked by {checked}",
            flush=True,
        )
    return imported
