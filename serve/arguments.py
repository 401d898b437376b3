"""What the application is started with: `serve run serve.app:build NAME=VALUE ...`, or `args` in a config file."""

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from product_retrieval.catalog import FetchOptions
from product_retrieval.encoders.protocol import Device
from serve.guard import GuardOptions
from serve.query_pictures import fetch_options
from serve.schemas import MAX_K


class SearchArgs(BaseModel):
    """Arguments of `serve run serve.app:build NAME=VALUE ...` and of `args` in a config file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: str
    """Folder of the index; local or in an object store."""
    version: int | None = None
    """Version of the index, for good; default: the current one, and whichever becomes current later."""
    model: str | None = None
    """Folder or hub id of the model; default: the one the index was made with."""
    device: Device = "auto"
    """Where queries are encoded."""
    poll_s: float = Field(default=5.0, gt=0)
    """How often each replica looks whether another version has become current."""
    min_replicas: int = Field(default=1, ge=1)
    """Fewest of either; with 2, a process that dies leaves one that answers."""
    max_replicas: int = Field(default=4, ge=1)
    """Most processes that search, and most that encode: more are started under load, as far as there are CPUs."""
    encoder_gpus: float = Field(default=0.0, ge=0)
    """Share of a GPU that an encoder takes, or whole GPUs; 0 encodes on CPUs."""
    clip_retrieval: bool = False
    """Also answer the clients of clip-retrieval; see docs/migration.md."""
    keys_file: str | None = None
    """File of API key hashes, at the same path on each machine with a replica; see docs/serving.md."""
    allow_open: bool = False
    """Answer without keys although HTTP listens beyond this machine."""
    cors_origins: tuple[str, ...] = ()
    """Other origins whose pages may ask; on the command line separated by commas."""
    image_hosts: tuple[str, ...] = ()
    """Hosts that are asked for pictures which queries name by URL, such as img.shop.example; default: none."""
    private_image_hosts: tuple[str, ...] = ()
    """Those of them that may have a private or loopback address."""
    log_queries: bool = False
    """Write the texts that are searched for to the access log."""
    reranker: str | None = None
    """`MODULE:NAME` of a Serve application, or of a function that returns one, that orders the hits; see ranking.py."""
    rerank_depth: int = Field(default=50, ge=1, le=MAX_K)
    """Candidates that it is given, at least."""
    rerank_timeout_s: float = Field(default=0.25, gt=0)
    """How long an answer waits for it before it keeps the order of the index."""

    @field_validator("cors_origins", "image_hosts", "private_image_hosts", mode="before")
    @classmethod
    def words_of_the_command_line(cls, value: object) -> object:
        """Split what the command line gives as one word."""
        return tuple(value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def room_between_fewest_and_most(self) -> "SearchArgs":
        """Refuse more processes at least than at most."""
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas={self.min_replicas} is more than max_replicas={self.max_replicas}")
        return self

    @model_validator(mode="after")
    def hosts_that_can_be(self) -> "SearchArgs":
        """Refuse entries that are no hosts."""
        self.fetch()
        return self

    def fetch(self) -> FetchOptions:
        """Return which pictures are fetched for queries."""
        return fetch_options(self.image_hosts, self.private_image_hosts)

    def guard(self) -> GuardOptions:
        """Return who may ask, and what is kept of it.

        Raises:
            OptionsError: a value is wrong.
        """
        return GuardOptions(
            keys_file=self.keys_file,
            allow_open=self.allow_open,
            cors_origins=self.cors_origins,
            log_queries=self.log_queries,
        )
