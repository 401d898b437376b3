"""Pictures fetched from the web: only from allowed hosts, within bounds of time and size, politely.

The URLs come with the catalogue and may have been written by anybody, as may the answers. What a URL may name is
decided in picture_urls, what an address may be in addresses, and how a connection keeps to it in pinned.
"""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, zip_longest

from product_retrieval.catalog.addresses import why_refused
from product_retrieval.catalog.contained import UnreadableImageError
from product_retrieval.catalog.fetch_errors import FetchError
from product_retrieval.catalog.fetch_options import FetchOptions
from product_retrieval.catalog.http_answers import Redirect, read_answer
from product_retrieval.catalog.picture_urls import HostEntry, PictureUrl, follow, parse_url
from product_retrieval.catalog.pinned import Connector, PinnedConnections, connect
from product_retrieval.catalog.resolved import Deadline, Resolver, resolve

NUM_THREADS = 32
"""Pictures on their way at once, over all hosts."""
FIRST_PAUSE_S = 0.25
"""Longest pause before the first retry; doubled for each further one."""
GIVEN_UP_AFTER = 16
"""Pictures in a row that a host failed to give, after which it is not asked again: a dead one costs no night."""


class ImageFetcher:
    """Fetches pictures; a context manager that holds connections."""

    def __init__(
        self,
        options: FetchOptions,
        *,
        resolver: Resolver = resolve,
        connector: Connector = connect,
        ssl_context: ssl.SSLContext | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare to fetch.

        Args:
            options: allowed hosts and bounds.
            resolver: what turns names to addresses.
            connector: what connects to an address.
            ssl_context: trusted certificates; None takes the system's.
            sleep: what waits between retries.
        """
        self._options = options
        self._allowed = [HostEntry.parse(entry) for entry in options.allowed_hosts]
        self._private = [HostEntry.parse(entry) for entry in options.private_hosts]
        self._connections = PinnedConnections(resolver=resolver, connector=connector, ssl_context=ssl_context)
        self._sleep = sleep
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Semaphore] = {}
        self._failures: dict[str, int] = defaultdict(int)

    def __enter__(self) -> ImageFetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()

    def fetch(self, urls: Sequence[str]) -> list[bytes | UnreadableImageError]:
        """Fetch pictures concurrently; one that occurs twice is fetched once.

        Args:
            urls: http or https, untrusted.

        Returns:
            In the order of the URLs the bytes of the picture, undecoded, or why it cannot be had.
        """
        parsed = {text: self._parse(text) for text in dict.fromkeys(urls)}
        queues: dict[str, deque[PictureUrl]] = defaultdict(deque)
        for url in dict.fromkeys(parsed.values()):
            if isinstance(url, PictureUrl):
                queues[url.host].append(url)
        answers: dict[PictureUrl, bytes | FetchError] = {}
        self._drain(queues, answers)
        found = {text: answers[url] if isinstance(url, PictureUrl) else url for text, url in parsed.items()}
        return [found[text] for text in urls]

    def _parse(self, text: str) -> PictureUrl | FetchError:
        try:
            return self._checked(parse_url(text))
        except FetchError as failure:
            return FetchError(failure.reason, failure.detail)

    def _drain(self, queues: dict[str, deque[PictureUrl]], answers: dict[PictureUrl, bytes | FetchError]) -> None:
        """Empty the queues of all hosts, by as many threads for each as may ask it: a slow one leaves others theirs."""

        def work(queue: deque[PictureUrl]) -> None:
            while queue:
                try:
                    url = queue.popleft()
                except IndexError:  # another thread took the last
                    return
                answers[url] = self._fetch_one(url)

        lanes = [[queue] * min(self._options.per_host, len(queue)) for queue in queues.values()]
        in_turn = [queue for queue in chain.from_iterable(zip_longest(*lanes)) if queue is not None]
        with ThreadPoolExecutor(min(NUM_THREADS, len(in_turn)) or 1, thread_name_prefix="fetch") as threads:
            try:
                for done in [threads.submit(work, queue) for queue in in_turn]:
                    done.result()
            finally:  # interrupted: what is on its way ends by its deadline, nothing else is begun
                for queue in queues.values():
                    queue.clear()

    def _fetch_one(self, url: PictureUrl) -> bytes | FetchError:
        """Fetch a picture through its redirects."""
        deadline = Deadline(self._options.timeout_s)
        try:
            for _ in range(self._options.max_redirects + 1):
                answer = self._visit(url, deadline)
                if isinstance(answer, bytes):
                    return answer
                url = self._redirected(url, answer.location)
        except FetchError as failure:
            return FetchError(failure.reason, failure.detail)  # without the frames that hold half of a picture
        return FetchError("image_redirected_too_often", f"{url.shown}: more than {self._options.max_redirects}")

    def _redirected(self, url: PictureUrl, target: bytes) -> PictureUrl:
        try:
            return self._checked(follow(url, target))
        except FetchError as failure:
            raise FetchError(failure.reason, f"redirected by {url.shown}: {failure.detail}") from failure

    def _checked(self, url: PictureUrl) -> PictureUrl:
        """Return a URL if it may be asked for.

        Raises:
            FetchError: it may not.
        """
        if url.is_address:
            why = why_refused(url.host, private_is_allowed=self._may_be_private(url))
            if why is not None:
                raise FetchError("image_address_not_allowed", f"{url.host}: {why}")
        if not any(entry.matches(url) for entry in self._allowed):
            raise FetchError("image_url_not_allowed", f"{url.scheme}://{url.authority} is not an allowed host")
        return url

    def _may_be_private(self, url: PictureUrl) -> bool:
        return any(entry.matches(url) for entry in self._private)

    def _visit(self, url: PictureUrl, deadline: Deadline) -> bytes | Redirect:
        """Ask for one URL, and again after a failure that may pass."""
        with self._turn(url.host, deadline):
            for attempt in range(self._options.num_retries + 1):
                try:
                    with self._connections.get(url, deadline, private_is_allowed=self._may_be_private(url)) as response:
                        answer = read_answer(response, url, max_bytes=self._options.max_bytes)
                except FetchError as failure:
                    pause_s = max(self._pause_s(attempt), failure.retry_after_s or 0.0)
                    is_last = attempt == self._options.num_retries or not failure.may_pass
                    if is_last or not deadline.allows(pause_s):
                        self._note(url.host, is_failing=failure.blames_host)
                        raise
                    self._sleep(pause_s)
                else:
                    self._note(url.host, is_failing=False)
                    return answer
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def _turn(self, host: str, deadline: Deadline) -> Iterator[None]:
        """Wait until a host may be asked once more; the wait is not the picture's fault and costs it no time."""
        with self._lock:
            turns = self._turns.setdefault(host, threading.Semaphore(self._options.per_host))
        asked_at = time.monotonic()
        with turns:
            deadline.extend(time.monotonic() - asked_at)
            if self._failures[host] >= GIVEN_UP_AFTER:
                raise FetchError("image_host_given_up", f"{host}: failed {GIVEN_UP_AFTER} times in a row")
            yield

    def _note(self, host: str, *, is_failing: bool) -> None:
        with self._lock:
            self._failures[host] = self._failures[host] + 1 if is_failing else 0

    def _pause_s(self, attempt: int) -> float:
        """Return a pause that doubles with every attempt, shortened by chance so that workers do not march in step."""
        return random.uniform(0.5, 1.0) * FIRST_PAUSE_S * float(2**attempt)
