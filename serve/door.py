"""Whether strangers can reach the service: decided outside the application, so it asks Ray Serve."""

from __future__ import annotations

import ipaddress
import os

import ray
from ray.serve import context as serve_context

from product_retrieval.errors import OptionsError
from serve.keys import ENVIRONMENT, KeyRing

ALL_INTERFACES = "0.0.0.0"
HA_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"


def refuse_open_door(keys: KeyRing, *, allow_open: bool) -> None:
    """Refuse to answer strangers without a key, unless told to.

    Args:
        keys: that the service asks for.
        allow_open: told to; something in front of the service keeps strangers out.

    Raises:
        OptionsError: HTTP listens beyond this machine, and there is no key.
    """
    if allow_open or len(keys) > 0:
        return
    host = listening_host()
    if host is not None and not is_loopback(host):
        raise OptionsError(
            f"HTTP listens on {host}, beyond this machine, and there is no API key: give keys_file or {ENVIRONMENT} "
            "(python -m serve.keys new --name NAME makes a key), listen on 127.0.0.1 only, "
            "or say allow_open=true if a proxy in front of the service asks who is there"
        )


def listening_host() -> str | None:
    """Return the address that HTTP listens on; None where it does not, as in a test without Ray.

    HAProxy has every replica listen on all interfaces, whatever the options say (ray/serve/_private/constants.py).
    Serve has no public call for the rest; this is the one that `serve.start` itself uses (Ray 2.60). It must not
    connect to a Ray that is not there, which the call would start.
    """
    if os.environ.get(HA_PROXY) == "1":
        return ALL_INTERFACES
    if not ray.is_initialized():
        return None
    client = serve_context._get_global_client(raise_if_no_controller_running=False)
    return None if client is None else client.http_config.host


def is_loopback(host: str) -> bool:
    """Say whether an address can be reached from its own machine only; a name other than localhost counts as not."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
