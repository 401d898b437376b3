"""The application that `serve run serve.app:build index=URI` and `serve deploy` start: search over HTTP, and a page.

    serve run serve.app:build index=out/index
    curl 'http://127.0.0.1:8000/v1/search?q=blue+sofa&k=5'
    curl -H 'Content-Type: application/json' -d '{"product_id": "hh-0001"}' http://127.0.0.1:8000/v1/search
    curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg http://127.0.0.1:8000/v1/search/image

Load doubles the replicas in some ten seconds, up to max_replicas=4. The version that becomes current is served without
a restart.

Annotations here are not postponed: Ray Serve reads the one of `build` to turn its arguments into SearchArgs.
"""

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.handle import DeploymentHandle

from product_retrieval.index.versions import current_version, read_manifest
from product_retrieval.storage import Storage
from serve.answers import ReplicaState
from serve.arguments import SearchArgs
from serve.deployments import QueryEncoder
from serve.following import VersionFollower
from serve.guard import install
from serve.metrics import ServiceMetrics
from serve.problems import RETRY_AFTER_S
from serve.query_pictures import QueryPictures
from serve.ranking import Ranking, load_reranker
from serve.replicas import AllReplicas, Looker
from serve.routes import MAX_SEARCHES, Routes
from serve.searcher import QueryVectors


@serve.deployment(
    max_ongoing_requests=4 * MAX_SEARCHES,
    max_queued_requests=8 * MAX_SEARCHES,
    backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
    max_constructor_retry_count=2,
    ray_actor_options={"num_cpus": 0.5},
)
@serve.ingress()
class SearchService:
    """A replica: it has the index in its own process, so a search is a call and not a hop."""

    def __init__(
        self,
        args: SearchArgs,
        fingerprint: str,
        encoder: DeploymentHandle[Any],
        reranker: DeploymentHandle[Any] | None = None,
    ) -> None:
        """Open the index.

        Args:
            args: of the application.
            fingerprint: digest of the encoder.
            encoder: the deployment that encodes queries.
            reranker: the one that orders what was found, if any.

        Raises:
            RetrievalError: there is no version that can be served.
        """
        self._args = args
        self._metrics = ServiceMetrics()
        self._follower = VersionFollower(
            Storage.at(args.index), fingerprint, pinned=args.version, metrics=self._metrics
        )
        self._follower.start(args.poll_s)
        self._replicas = AllReplicas()
        self._looker = Looker(self._follower, self._replicas.name)
        self._vectors = QueryVectors(encoder, QueryPictures(args.fetch()))
        self._ranking = Ranking(
            reranker, depth=args.rerank_depth, timeout_s=args.rerank_timeout_s, metrics=self._metrics
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Serve asks for it in the replica, where it is known who may ask.

        Raises:
            OptionsError: nobody is asked for a key although strangers can reach the service.
        """
        routes = Routes(
            self._follower,
            self._vectors,
            self._ranking,
            self._metrics,
            refreshed=lambda: self._replicas.look(self._looker),
            is_clip_retrieval=self._args.clip_retrieval,
        )
        app = routes.application()
        install(app, self._args.guard(), metrics=self._metrics)
        return app

    async def look(self, timeout_s: float) -> ReplicaState:
        """Look for another version now; asked of every replica by whichever was asked to refresh."""
        return await self._looker.look(timeout_s)

    def __del__(self) -> None:
        """Look for no more versions; Serve calls this when a replica has drained."""
        if hasattr(self, "_follower"):  # it may not have got that far
            self._follower.stop()


def autoscaling(min_replicas: int, max_replicas: int) -> AutoscalingConfig:
    """Return how replicas follow load: twice as many after ten seconds of it, fewer after minutes without."""
    return AutoscalingConfig(
        min_replicas=min_replicas,
        max_replicas=max_replicas,
        target_ongoing_requests=8,
        upscale_delay_s=0,
        downscale_delay_s=180,
        look_back_period_s=12,
        upscaling_factor=2,
    )


def build(args: SearchArgs) -> Application:
    """Build the application.

    Raises:
        ArtifactError: there is no such index or version.
        OptionsError: the options of who may ask are wrong, or there is no such re-ranker.
    """
    args.guard()
    storage = Storage.at(args.index)
    manifest = read_manifest(storage, current_version(storage) if args.version is None else args.version)
    fingerprint, scaled = manifest.fingerprint.digest, autoscaling(args.min_replicas, args.max_replicas)
    encoder = QueryEncoder.options(
        autoscaling_config=scaled, ray_actor_options={"num_cpus": 0.5, "num_gpus": args.encoder_gpus}
    ).bind(args.model or manifest.model, fingerprint, manifest.model, args.device)
    reranker = None if args.reranker is None else load_reranker(args.reranker)
    return SearchService.options(autoscaling_config=scaled).bind(
        args.model_copy(update={"index": storage.uri}), fingerprint, encoder, reranker
    )
