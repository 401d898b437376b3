"""Pictures that queries name by URL: fetched from allowed hosts, by exactly the rules for those of a catalogue.

Whoever asks chooses the URL, and the service runs inside a network: product_retrieval/catalog/fetched.py says what may
be asked for, docs/picture-urls.md what is refused and why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from product_retrieval.catalog import FetchOptions
from product_retrieval.catalog.contained import UnreadableImageError
from product_retrieval.catalog.fetched import ImageFetcher
from serve.problems import MAX_BODY_BYTES, RETRY_AFTER_S, ProblemError

TIMEOUT_S = 5.0
"""For one picture in all; whoever asks is waiting."""
NUM_RETRIES = 1
NUM_FETCHES = 8
"""Pictures on their way at once in a replica."""
MAX_WAITING = 32
"""Pictures on their way or waiting for a turn; more are refused at once."""
OFF = "no host is allowed to be asked for pictures: send the file itself as `image`"


def fetch_options(hosts: tuple[str, ...], private_hosts: tuple[str, ...]) -> FetchOptions:
    """Return what may be fetched for a query.

    Args:
        hosts: that may be asked, as `--fetch.allowed-hosts` of a catalogue; none turns fetching off.
        private_hosts: those of them that may have a private address.

    Raises:
        ValueError: an entry is none; the message calls the arguments image_hosts and private_image_hosts.
    """
    try:
        return FetchOptions(
            allowed_hosts=hosts,
            private_hosts=private_hosts,
            timeout_s=TIMEOUT_S,
            num_retries=NUM_RETRIES,
            max_bytes=MAX_BODY_BYTES,
        )
    except ValueError as error:
        named = str(error).replace("--fetch.allowed-hosts", "image_hosts")
        raise ValueError(named.replace("--fetch.private-hosts", "private_image_hosts")) from error


class QueryPictures:
    """Fetches pictures for queries, in threads of its own."""

    def __init__(
        self, options: FetchOptions, *, fetcher: Callable[[FetchOptions], ImageFetcher] = ImageFetcher
    ) -> None:
        """Remember what may be fetched.

        Args:
            options: allowed hosts and bounds.
            fetcher: makes what fetches one picture. It is a new one each time: what a catalogue's remembers about a
                host, to give up a dead one for the rest of a run, would be remembered for as long as the service runs.
        """
        self._options = options
        self._fetcher = fetcher
        self._threads = ThreadPoolExecutor(NUM_FETCHES, thread_name_prefix="query-picture")
        self._num_waiting = 0

    async def fetch(self, url: str, *, field: str = "image_url") -> bytes:
        """Return the bytes of a picture, not decoded.

        Args:
            url: untrusted.
            field: of the request, for errors.

        Raises:
            ProblemError: it may not be fetched, it cannot be had, or too many are on their way.
        """
        if not self._options.is_on:
            raise ProblemError(OFF, field=field)
        if self._num_waiting >= MAX_WAITING:
            raise ProblemError(
                "more pictures to fetch than can be in time; try again",
                field=field, status=503, retry_after_s=RETRY_AFTER_S,
            )  # fmt: skip
        self._num_waiting += 1
        fetching = asyncio.get_running_loop().run_in_executor(self._threads, self._fetch_one, url)
        fetching.add_done_callback(self._count_done)  # a client that leaves does not end what is on its way
        found = await asyncio.shield(fetching)
        if isinstance(found, UnreadableImageError):
            raise ProblemError(f"{found.reason}: {found.detail}".removesuffix(": "), field=field)
        return found

    def _fetch_one(self, url: str) -> bytes | UnreadableImageError:
        with self._fetcher(self._options) as fetcher:
            (found,) = fetcher.fetch([url])
        return found

    def _count_done(self, _fetching: object) -> None:
        self._num_waiting -= 1
