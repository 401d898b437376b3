"""The application that `serve run serve.app:build index=URI` and `serve deploy` start: search over HTTP, and a page.

    serve run serve.app:build index=out/index
    curl 'http://127.0.0.1:8000/v1/search?q=blue+sofa&k=5'
    curl -H 'Content-Type: application/json' -d '{"product_id": "hh-0001"}' http://127.0.0.1:8000/v1/search
    curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg http://127.0.0.1:8000/v1/search/image

Load doubles the replicas in some ten seconds, up to max_replicas=4. The version that becomes current is served without
a restart.

Annotations here are not postponed: Ray Serve reads the one of `build` to turn its arguments into SearchArgs.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from pydantic import BaseModel
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.handle import DeploymentHandle
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from product_retrieval import __version__
from product_retrieval.index.versions import current_version, read_manifest
from product_retrieval.storage import Storage
from serve.answers import BatchAnswer, Problem, ProductRecord, SearchAnswer, ServiceInfo
from serve.api_docs import docs_response
from serve.deployments import QueryEncoder
from serve.following import VersionFollower
from serve.page import page_response
from serve.problems import ProblemError, install, record_of
from serve.schemas import BatchRequest, SearchArgs, SearchRequest, SideParams, TextParams
from serve.searcher import RETRY_AFTER_S, QueryVectors, Searcher

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

app = FastAPI(
    title="Product search",
    description="Search a catalogue by text, picture, product or vector.",
    version=__version__,
    docs_url=None,
    redoc_url=None,
    responses={422: PROBLEM, "default": PROBLEM},
)
install(app)


# Serve pickles the class below with what this module holds when the class is made, so these come first.
def answer(found: SearchAnswer) -> Response:
    """Return an answer with its stage times in a header too."""
    response = json_response(found)
    response.headers["Server-Timing"] = found.timings_ms.header()
    return response


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


def autoscaling(max_replicas: int) -> AutoscalingConfig:
    """Return how replicas follow load: twice as many after ten seconds of it, one fewer after minutes without."""
    return AutoscalingConfig(
        min_replicas=1,
        max_replicas=max_replicas,
        target_ongoing_requests=8,
        upscale_delay_s=0,
        downscale_delay_s=180,
        look_back_period_s=12,
        upscaling_factor=2,
    )


@serve.deployment(
    max_ongoing_requests=4 * MAX_SEARCHES,
    max_queued_requests=8 * MAX_SEARCHES,
    backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
    max_constructor_retry_count=2,
    ray_actor_options={"num_cpus": 0.5},
)
@serve.ingress(app)
class SearchService:
    """The routes; each replica has the index in its own process, so a search is a call and not a hop."""

    def __init__(
        self, index_uri: str, fingerprint: str, version: int | None, poll_s: float, encoder: DeploymentHandle[Any]
    ) -> None:
        """Open the index and read the page."""
        self._follower = VersionFollower(Storage.at(index_uri), fingerprint, pinned=version)
        self._follower.start(poll_s)
        self._vectors = QueryVectors(encoder)
        self._searcher = Searcher(self._follower, self._vectors)
        self._num_searches = 0
        self._page = page_response()

    def __del__(self) -> None:
        """Look for no more versions; Serve calls this when a replica has drained."""
        with contextlib.suppress(AttributeError):  # it may not have got that far
            self._follower.stop()

    @contextlib.contextmanager
    def _admitted(self, num_queries: int = 1) -> Iterator[None]:
        """Count a search, or refuse it while there are too many."""
        if self._num_searches and self._num_searches + num_queries > MAX_SEARCHES:
            raise ProblemError("more searches than can be answered in time; try again", status=503, retry_after_s=1)
        self._num_searches += num_queries
        try:
            yield
        finally:
            self._num_searches -= num_queries

    @app.post("/v1/search", response_model=SearchAnswer)
    async def search(self, request: SearchRequest) -> Response:
        """Search by a text, a picture, a product, a vector, or a weighted mix of them."""
        with self._admitted():
            return answer(await self._searcher.search(request))

    @app.get("/v1/search", response_model=SearchAnswer)
    async def search_by_text(self, params: Annotated[TextParams, Query()]) -> Response:
        """Search by a text, from a browser's address bar or curl."""
        with self._admitted():
            return answer(await self._searcher.search(params.request(text=params.q)))

    @app.post("/v1/search/image", response_model=SearchAnswer, openapi_extra={"requestBody": PICTURE_BODY})
    async def search_by_picture(self, request: Request, params: Annotated[SideParams, Query()]) -> Response:
        """Search by a picture: the body is the picture's file as it is, or a form with it as the field `image`."""
        with self._admitted():
            picture = await uploaded_picture(request)
            return answer(await self._searcher.search(params.request(image=picture)))

    @app.post("/v1/search/batch", response_model=BatchAnswer)
    async def search_batch(self, batch: BatchRequest) -> Response:
        """Answer several queries from one version of the index, each with options of its own."""
        with self._admitted(len(batch.queries)):
            found = await self._searcher.search_all(batch.queries)
        versions = {one.index_version for one in found if isinstance(one, SearchAnswer)}
        answers = [Problem(**record_of(one)) if isinstance(one, ProblemError) else one for one in found]
        version = versions.pop() if versions else self._follower.served.version
        return json_response(BatchAnswer(index_version=version, answers=answers))

    # Ids of a folder catalogue are paths, so an id may hold slashes; the picture's route must come first.
    @app.get(
        "/v1/products/{product_id:path}/image",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def picture(self, product_id: str) -> Response:
        """Return a product's picture, at most 640 pixels wide and high."""
        jpeg = await asyncio.to_thread(self._searcher.picture, product_id)
        headers = {"Cache-Control": f"private, max-age={PICTURE_MAX_AGE_S}"}
        return Response(jpeg, media_type="image/jpeg", headers=headers)

    @app.get("/v1/products/{product_id:path}", response_model=ProductRecord)
    async def product(self, product_id: str) -> Response:
        """Return a product's columns."""
        return json_response(await asyncio.to_thread(self._searcher.product, product_id))

    @app.get("/v1/info")
    async def info(self) -> ServiceInfo:
        """Say which index and which model answer, and how well they were measured to."""
        return self._searcher.describe()

    @app.post("/v1/refresh")
    async def refresh(self) -> ServiceInfo:
        """Look now, not at the next poll, whether another version has become current; of this replica only."""
        await asyncio.to_thread(self._follower.check)
        return self._searcher.describe()

    @app.get("/livez", response_class=PlainTextResponse)
    async def livez(self) -> str:
        """Say that this process answers."""
        return "alive\n"

    @app.get("/readyz", response_class=PlainTextResponse)
    async def readyz(self) -> str:
        """Say whether a search would be answered now."""
        try:
            is_ready = await asyncio.wait_for(self._searcher.is_ready(), READY_TIMEOUT_S)
        except (TimeoutError, RayError):
            is_ready = False
        if not is_ready:
            raise ProblemError("the query encoder does not answer, or is not the index's", status=503)
        return "ready\n"

    @app.get("/docs", include_in_schema=False)
    async def docs(self) -> HTMLResponse:
        """Return the routes, for people."""
        return docs_response(app.openapi())

    @app.get("/", include_in_schema=False)
    async def page(self) -> HTMLResponse:
        """Return the page."""
        return self._page


def build(args: SearchArgs) -> Application:
    """Build the application.

    Raises:
        ArtifactError: there is no such index or version.
    """
    storage = Storage.at(args.index)
    manifest = read_manifest(storage, current_version(storage) if args.version is None else args.version)
    fingerprint, scaled = manifest.fingerprint.digest, autoscaling(args.max_replicas)
    encoder = QueryEncoder.options(
        autoscaling_config=scaled, ray_actor_options={"num_cpus": 0.5, "num_gpus": args.encoder_gpus}
    ).bind(args.model or manifest.model, fingerprint, manifest.model, args.device)
    service = SearchService.options(autoscaling_config=scaled)
    return service.bind(storage.uri, fingerprint, args.version, args.poll_s, encoder)
