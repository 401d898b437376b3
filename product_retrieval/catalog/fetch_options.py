"""Options of fetching pictures from the web; off until a host is allowed."""

from __future__ import annotations

from dataclasses import dataclass

from product_retrieval.catalog.contained import MAX_IMAGE_BYTES
from product_retrieval.catalog.picture_urls import HostEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """Which hosts pictures may be fetched from, and within which bounds."""

    allowed_hosts: tuple[str, ...] = ()
    """Hosts such as `img.shop.example`, `*.cdn.example` (all below it), `cdn.internal:8080`, or `*`; default: none."""
    private_hosts: tuple[str, ...] = ()
    """Those of the allowed hosts that may have a private or loopback address: a CDN inside the network."""
    timeout_s: float = 20.0
    """For one picture in all: name, connection, redirects, retries and body."""
    max_bytes: int = MAX_IMAGE_BYTES
    """Size beyond which a picture is refused, on the way and unpacked."""
    max_redirects: int = 5
    """Redirects that are followed; each is checked like the first URL."""
    num_retries: int = 2
    """Further requests after a failure that may pass: no connection, broken off, 408, 425, 429, 5xx."""
    per_host: int = 8
    """Requests to one host at a time, per reading process."""

    def __post_init__(self) -> None:
        for flag, entries in (("allowed", self.allowed_hosts), ("private", self.private_hosts)):
            for entry in entries:
                try:
                    HostEntry.parse(entry)
                except ValueError as error:
                    raise ValueError(f"--fetch.{flag}-hosts: {error}") from error
        if "*" in self.private_hosts:
            raise ValueError("--fetch.private-hosts cannot be '*': it would open the whole network; name the hosts")
        unknown = [host for host in self.private_hosts if host not in self.allowed_hosts]
        if unknown:
            raise ValueError(f"--fetch.private-hosts {unknown[0]!r} is not among --fetch.allowed-hosts; add it there")
        if not 0 < self.timeout_s < float("inf"):
            raise ValueError(f"--fetch.timeout-s must be more than 0, not {self.timeout_s}")
        for flag, value, least in (
            ("max-bytes", self.max_bytes, 1),
            ("max-redirects", self.max_redirects, 0),
            ("num-retries", self.num_retries, 0),
            ("per-host", self.per_host, 1),
        ):
            if value < least:
                raise ValueError(f"--fetch.{flag} must be at least {least}, not {value}")

    @property
    def allowing(self) -> dict[str, int | list[str]] | None:
        """What decides which pictures are refused, whatever the network does; None where all are."""
        if not self.is_on:
            return None
        return {
            "allowed_hosts": sorted(self.allowed_hosts),
            "private_hosts": sorted(self.private_hosts),
            "max_bytes": self.max_bytes,
            "max_redirects": self.max_redirects,
        }

    @property
    def is_on(self) -> bool:
        """Whether any host may be asked."""
        return bool(self.allowed_hosts)
