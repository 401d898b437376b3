"""The routes of the service: HTTP in, HTTP out, and how many searches there may be at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from pydantic import BaseModel
from ray.exceptions import RayError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from product_retrieval import __version__
from serve.answers import BatchAnswer, Problem, ProductRecord, RefreshAnswer, SearchAnswer, ServiceInfo
from serve.api_docs import docs_response
from serve.candidates import ServedCandidates
from serve.clip_retrieval import clip_retrieval_router
from serve.following import VersionFollower
from serve.metrics import ServiceMetrics
from serve.page import page_response
from serve.problems import RETRY_AFTER_S, ProblemError, record_of
from serve.ranking import Ranking
from serve.requests import note_search
from serve.schemas import BatchRequest, SearchRequest, SideParams, TextParams
from serve.searcher import QueryVectors, Searcher

READY_TIMEOUT_S = 2.0
PICTURE_MAX_AGE_S = 3600
MAX_SEARCHES = 32
"""Searches at once in a replica; more are refused at once, so that those inside stay quick."""
MAX_FORM_PARTS = 4
PROBLEM: dict[str, Any] = {
    "description": "Why there is no answer (RFC 9457).",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
PICTURE_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}}}
        },
    },
}
JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
}


class Routes:
    """What each path does."""

    def __init__(
        self,
        follower: VersionFollower,
        vectors: QueryVectors,
        ranking: Ranking,
        metrics: ServiceMetrics,
        *,
        refreshed: Callable[[], Awaitable[RefreshAnswer]],
        is_clip_retrieval: bool,
    ) -> None:
        """Remember what answers.

        Args:
            follower: holds the version that is served.
            vectors: encodes queries.
            ranking: orders what was found.
            metrics: counts.
            refreshed: lets every replica look for another version.
            is_clip_retrieval: also answer the clients of clip-retrieval.
        """
        self._follower = follower
        self._vectors = vectors
        self._searcher = Searcher(follower, vectors, ranking)
        self._metrics = metrics
        self._refreshed = refreshed
        self._is_clip_retrieval = is_clip_retrieval
        self._num_searches = 0
        self._page = page_response()

    def application(self) -> FastAPI:
        """Return the application; nothing stands around it yet."""
        app = FastAPI(
            title="Product search",
            description="Search a catalogue by text, picture, product or vector.",
            version=__version__,
            docs_url=None,
            redoc_url=None,
            responses={422: PROBLEM, "default": PROBLEM},
        )
        add = app.add_api_route
        add("/v1/search", self.search, methods=["POST"], response_model=SearchAnswer)
        add("/v1/search", self.search_by_text, response_model=SearchAnswer)
        picture_body = {"requestBody": PICTURE_BODY}
        add(
            "/v1/search/image", self.search_by_picture, methods=["POST"], response_model=SearchAnswer,
            openapi_extra=picture_body,
        )  # fmt: skip
        add("/v1/search/batch", self.search_batch, methods=["POST"], response_model=BatchAnswer)
        # Ids of a folder catalogue are paths, so an id may hold slashes; the picture's route must come first.
        add("/v1/products/{product_id:path}/image", self.picture, response_class=Response, responses=JPEG)
        add("/v1/products/{product_id:path}", self.product, response_model=ProductRecord)
        add("/v1/info", self.info, response_model=ServiceInfo)
        add("/v1/refresh", self.refresh, methods=["POST"], response_model=RefreshAnswer)
        add("/livez", self.livez, response_class=PlainTextResponse)
        add("/readyz", self.readyz, response_class=PlainTextResponse)
        add("/", self.page, include_in_schema=False)
        app.add_api_route("/docs", lambda: docs_response(app.openapi()), include_in_schema=False)
        if self._is_clip_retrieval:
            app.include_router(clip_retrieval_router(self._candidates), dependencies=[Depends(self._admission)])
        return app

    async def search(self, request: SearchRequest) -> Response:
        """Search by a text, a picture, a product, a vector, or a weighted mix of them."""
        with self._admitted():
            return self._answer(request, await self._searcher.search(request))

    async def search_by_text(self, params: Annotated[TextParams, Query()]) -> Response:
        """Search by a text, from a browser's address bar or curl."""
        with self._admitted():
            request = params.request(text=params.q)
            return self._answer(request, await self._searcher.search(request))

    async def search_by_picture(self, request: Request, params: Annotated[SideParams, Query()]) -> Response:
        """Search by a picture: the body is the picture's file as it is, or a form with it as the field `image`."""
        with self._admitted():
            asked = params.request(image=await uploaded_picture(request))
            return self._answer(asked, await self._searcher.search(asked))

    async def search_batch(self, batch: BatchRequest) -> Response:
        """Answer several queries from one version of the index, each with options of its own."""
        with self._admitted(len(batch.queries)):
            version, found = await self._searcher.search_all(batch.queries)
        answers = [Problem(**record_of(one)) if isinstance(one, ProblemError) else one for one in found]
        return json_response(BatchAnswer(index_version=version, answers=answers))

    async def picture(self, product_id: str) -> Response:
        """Return a product's picture, at most 640 pixels wide and high."""
        jpeg = await asyncio.to_thread(self._searcher.picture, product_id)
        headers = {"Cache-Control": f"private, max-age={PICTURE_MAX_AGE_S}"}
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    async def product(self, product_id: str) -> Response:
        """Return a product's columns."""
        return json_response(await asyncio.to_thread(self._searcher.product, product_id))

    async def info(self) -> ServiceInfo:
        """Say which index and which model answer, and how well they were measured to."""
        return self._searcher.describe()

    async def refresh(self) -> RefreshAnswer:
        """Let every replica look for another version now, not at its next poll, and say where each stands."""
        return await self._refreshed()

    async def livez(self) -> str:
        """Say that this process answers."""
        return "alive\n"

    async def readyz(self) -> str:
        """Say whether a search would be answered now."""
        try:
            is_ready = await asyncio.wait_for(self._searcher.is_ready(), READY_TIMEOUT_S)
        except (TimeoutError, RayError):
            is_ready = False
        if not is_ready:
            raise ProblemError(
                "the query encoder does not answer, or is not the index's", status=503, retry_after_s=RETRY_AFTER_S
            )
        return "ready\n"

    async def page(self) -> HTMLResponse:
        """Return the page."""
        return self._page

    def _candidates(self) -> ServedCandidates:
        return ServedCandidates(self._follower.served, self._vectors)

    async def _admission(self) -> AsyncIterator[None]:
        with self._admitted():
            yield

    @contextlib.contextmanager
    def _admitted(self, num_queries: int = 1) -> Iterator[None]:
        """Count a search, or refuse it while there are too many."""
        if self._num_searches and self._num_searches + num_queries > MAX_SEARCHES:
            raise ProblemError(
                "more searches than can be answered in time; try again", status=503, retry_after_s=RETRY_AFTER_S
            )
        self._num_searches += num_queries
        try:
            yield
        finally:
            self._num_searches -= num_queries

    def _answer(self, request: SearchRequest, found: SearchAnswer) -> Response:
        """Return an answer with its stage times in a header too."""
        stages = found.timings_ms.model_dump()
        note_search(stages, query=request.text)
        self._metrics.observe_stages(stages)
        response = json_response(found)
        response.headers["Server-Timing"] = found.timings_ms.header()
        return response


def documented_application() -> FastAPI:
    """Return the application with nothing behind it, for its OpenAPI document."""
    nothing = cast("Any", None)
    return Routes(nothing, nothing, nothing, nothing, refreshed=nothing, is_clip_retrieval=False).application()


def json_response(record: BaseModel) -> Response:
    """Return a record as JSON; numbers that JSON has no word for become null."""
    return Response(record.model_dump_json(), media_type="application/json")


async def uploaded_picture(request: Request) -> bytes:
    """Return the picture that a request carries: its body, or the one file of a form.

    Raises:
        ProblemError: the form is not one, or has no file.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.body()
    try:
        form = await request.form(max_files=1, max_fields=MAX_FORM_PARTS)
    except HTTPException as error:
        if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise
        raise ProblemError(f"not a form: {error.detail}", status=400) from error
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    if len(files) != 1:
        raise ProblemError("the form has no file; send the picture as the field `image`", field="image")
    return await files[0].read()
