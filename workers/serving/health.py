"""What a runner says of itself: whether its algorithm has loaded, and how busy it is."""

import http.client
import json
import math
from dataclasses import dataclass
from typing import Any

from shared.instances.endpoints import connect
from shared.settings import settings

TIMEOUT_SECONDS = 2.0
"""For the whole answer: what runs there can be hostile, and is not to hold up who looks after the others."""
MAX_RESPONSE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Health:
    """An answer to `GET /healthz`."""

    loaded: bool
    calls: int | None
    """Calls that are under way, those that wait included; None: it did not say."""
    idle_seconds: float | None
    """How long there have been none; None: it did not say."""


def ask_health(endpoint: str) -> Health | None:
    """What is answered at an endpoint (`Serving.endpoint`); None where nothing is, or something else."""
    connection = http.client.HTTPConnection("runner")
    try:
        connection.sock = connect(endpoint, settings().resolved_serving_dir, seconds=TIMEOUT_SECONDS)
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        said: Any = json.loads(answer.read(MAX_RESPONSE_BYTES))
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()
    if not isinstance(said, dict):
        return None
    return Health(answer.status == http.client.OK, _whole(said.get("calls")), _seconds(said.get("idle_seconds")))


def _whole(said: Any) -> int | None:
    return said if isinstance(said, int) and said >= 0 else None


def _seconds(said: Any) -> float | None:
    """A finite number of seconds; whole ones can be too large for a float, and the runner says none."""
    return said if isinstance(said, float) and math.isfinite(said) and said >= 0 else None
