"""Encoders: products and queries to unit vectors of one shared space."""

from product_retrieval.encoders.protocol import (
    DEMO_MODEL,
    Encoder,
    EncoderOptions,
    Fingerprint,
    check_model,
    load_encoder,
)

__all__ = ["DEMO_MODEL", "Encoder", "EncoderOptions", "Fingerprint", "check_model", "load_encoder"]
