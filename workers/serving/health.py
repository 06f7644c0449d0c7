"""Read a runner's health: whether its algorithm has loaded, and how busy it is."""

import http.client
import json
import math
from dataclasses import dataclass
from typing import Any

from shared.instances.endpoints import connect
from shared.net.responses import StrictResponse
from shared.settings import settings

TIMEOUT_SECONDS = 2.0
"""For the whole response: an instance can be hostile, and must not hold up the worker that reconciles the others."""
MAX_RESPONSE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Health:
    """A response to `GET /healthz`.

    `calls` counts those in progress, including queued ones; `idle_seconds` is the time since the last call ended. None
    if the runner did not report them.
    """

    loaded: bool
    calls: int | None
    idle_seconds: float | None


def read_health(endpoint: str) -> Health | None:
    """Return the health of the runner at an endpoint (`Instance.endpoint`); None without a valid response."""
    connection = http.client.HTTPConnection("runner")
    connection.response_class = StrictResponse
    try:
        connection.sock = connect(endpoint, settings().resolved_serving_dir, seconds=TIMEOUT_SECONDS)
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        document: Any = json.loads(response.read(MAX_RESPONSE_BYTES))
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()
    if not isinstance(document, dict):
        return None
    calls, idle = document.get("calls"), document.get("idle_seconds")
    # The runner reports seconds as a float. An integer of any size may be too large to convert.
    return Health(
        loaded=response.status == http.client.OK,
        calls=calls if isinstance(calls, int) and calls >= 0 else None,
        idle_seconds=idle if isinstance(idle, float) and math.isfinite(idle) and idle >= 0 else None,
    )
