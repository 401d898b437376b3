"""Cross-modal product retrieval: catalogue, images, encoders, vectors and index, without Ray and without HTTP."""

__version__ = "0.1.0"
