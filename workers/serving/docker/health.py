"""What a runner says of itself: whether its algorithm has loaded, and how busy it is."""

import http.client
import json
from dataclasses import dataclass
from typing import Any

from shared.servings.sockets import connect
from shared.settings import settings

ANSWER_SECONDS = 2.0
LONGEST_ANSWER = 64 * 1024


@dataclass(frozen=True)
class Health:
    """An answer to `GET /healthz`."""

    loaded: bool
    calls: int | None
    idle_seconds: float | None


def ask_health(serving_id: str) -> Health | None:
    """What it answers; None where it does not, or says something else: what runs there can be hostile."""
    try:
        connection = http.client.HTTPConnection("runner", timeout=ANSWER_SECONDS)
        connection.sock = connect(settings().resolved_serving_dir, serving_id, seconds=ANSWER_SECONDS)
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            said: Any = json.loads(answer.read(LONGEST_ANSWER))
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    return Health(answer.status == http.client.OK, _whole(said.get("calls")), _seconds(said.get("idle_seconds")))


def _whole(said: Any) -> int | None:
    return said if isinstance(said, int) and said >= 0 else None


def _seconds(said: Any) -> float | None:
    return float(said) if isinstance(said, int | float) and said >= 0 else None
