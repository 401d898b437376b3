"""Why a picture could not be fetched: the reason codes, and the error that carries one."""

from __future__ import annotations

from typing import Literal

from product_retrieval.catalog.contained import UnreadableImageError

FetchReason = Literal[
    "image_url_malformed",
    "image_url_not_allowed",
    "image_address_not_allowed",
    "image_redirected_too_often",
    "image_not_found",
    "image_http_error",
    "image_server_error",
    "image_too_large",
    "image_timeout",
    "image_not_readable",
    "image_host_given_up",
]
"""What each code says:

- image_url_malformed: no host, an impossible host or port.
- image_url_not_allowed: scheme, user name, host or port, of the URL or of a redirect, is not one that was allowed.
- image_address_not_allowed: the host is, or resolves to, an address that is not public, or not for private hosts.
- image_redirected_too_often: more redirects than --fetch.max-redirects, a loop among them.
- image_not_found: HTTP 404 or 410.
- image_http_error: another status that will not pass, such as 403, or a redirect to nowhere.
- image_server_error: 408, 425, 429 or 5xx, after all retries.
- image_too_large: more bytes than --fetch.max-bytes, on the way or unpacked.
- image_timeout: not there after --fetch.timeout-s.
- image_not_readable: no name, no connection, no valid certificate, broken off, or an unknown content encoding.
- image_host_given_up: not asked for, since its host failed too many times in a row before.
"""


class FetchError(UnreadableImageError):
    """A picture could not be fetched."""

    def __init__(
        self, reason: FetchReason, detail: str = "", *, may_pass: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason, detail)
        self.reason: FetchReason = reason
        self.may_pass = may_pass
        """Whether asking again may help."""
        self.retry_after_s = retry_after_s
        """How long the server asks to wait."""

    @property
    def blames_host(self) -> bool:
        """Whether the host rather than the picture is the likely cause: silent, unreachable, or asking to wait."""
        is_unreachable = self.reason == "image_timeout" or (self.may_pass and self.reason == "image_not_readable")
        return is_unreachable or self.retry_after_s is not None
