"""The application that `serve run serve.app:build index=URI` and `serve deploy` start: search over HTTP, and a page.

    serve run serve.app:build index=out/index
    curl 'http://127.0.0.1:8000/v1/search?q=blue+sofa&k=5'
    curl -H 'Content-Type: application/json' -d '{"product_id": "hh-0001"}' http://127.0.0.1:8000/v1/search
    curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg http://127.0.0.1:8000/v1/search/image

Annotations here are not postponed: Ray Serve reads the one of `build` to turn its arguments into SearchArgs.
"""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from pydantic import BaseModel
from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from product_retrieval import __version__
from product_retrieval.storage import Storage
from serve.deployments import QueryEncoder
from serve.page import page_response
from serve.problems import ProblemError, install
from serve.schemas import (
    ProductRecord,
    SearchAnswer,
    SearchArgs,
    SearchRequest,
    ServiceInfo,
    SideParams,
    TextParams,
)
from serve.searcher import Searcher, resolve_version

READY_TIMEOUT_S = 2.0
PICTURE_MAX_AGE_S = 3600

app = FastAPI(title="Product search", version=__version__, docs_url=None, redoc_url=None)
install(app)


# Serve pickles the class below with what this module holds when the class is made, so these two come first.
def answer(found: SearchAnswer) -> Response:
    """Return an answer with its stage times in a header too."""
    response = json_response(found)
    response.headers["Server-Timing"] = found.timings_ms.header()
    return response


def json_response(record: BaseModel) -> Response:
    """Return a record as JSON; numbers that JSON has no word for become null."""
    return Response(record.model_dump_json(), media_type="application/json")


@serve.deployment(max_ongoing_requests=64, max_constructor_retry_count=2, ray_actor_options={"num_cpus": 0.5})
@serve.ingress(app)
class SearchService:
    """The routes; each replica has the index in its own process, so a search is a call and not a hop."""

    def __init__(self, index_uri: str, version: int, encoder: DeploymentHandle[Any]) -> None:
        """Open the index and read the page."""
        self._searcher = Searcher(index_uri, version, encoder)
        self._page = page_response()

    @app.post("/v1/search", response_model=SearchAnswer)
    async def search(self, request: SearchRequest) -> Response:
        """Search by a text, a picture, a product or a vector."""
        return answer(await self._searcher.search(request))

    @app.get("/v1/search", response_model=SearchAnswer)
    async def search_by_text(self, params: Annotated[TextParams, Query()]) -> Response:
        """Search by a text, from a browser's address bar or curl."""
        return answer(await self._searcher.search(SearchRequest(text=params.q, k=params.k, against=params.against)))

    @app.post("/v1/search/image", response_model=SearchAnswer)
    async def search_by_picture(self, request: Request, params: Annotated[SideParams, Query()]) -> Response:
        """Search by a picture; the body is the picture's file as it is."""
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise ProblemError("send the picture itself as the body, not a form (curl --data-binary @FILE)", status=415)
        picture = await request.body()
        return answer(await self._searcher.search(SearchRequest(image=picture, k=params.k, against=params.against)))

    # Ids of a folder catalogue are paths, so an id may hold slashes; the picture's route must come first.
    @app.get("/v1/products/{product_id:path}/image")
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
    version = resolve_version(storage, args.version)
    encoder = QueryEncoder.bind(storage.uri, version, args.model, args.device)
    return SearchService.bind(storage.uri, version, encoder)
