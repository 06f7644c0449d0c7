"""Call the HTTP API as callers do; a request may get no response."""

import json
import threading
from dataclasses import dataclass, field
from typing import Any

import requests

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Response:
    """A response; status 0 if there was none."""

    status: int
    job_id: str | None = None
    retry_after: float | None = None
    text: str = ""

    @property
    def accepted(self) -> bool:
        """Return whether the call was accepted."""
        return 200 <= self.status < 300

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Api:
    """A caller with a key. It keeps every response, so that a check can search them for secrets."""

    url: str
    key: str = field(repr=False)
    responses: list[str] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        idempotency_key: str | None = None,
        seconds: float = TIMEOUT_SECONDS,
    ) -> Response:
        """Send one request and wait for its response for at most `seconds`."""
        headers = {"Authorization": f"Simple {self.key}", "Connection": "close"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        try:
            response = requests.request(method, self.url + path, json=body, headers=headers, timeout=seconds)
        except requests.RequestException:
            return Response(0)
        with self._lock:
            self.responses.append(f"{response.headers}\n{response.text}")
        wait = response.headers.get("Retry-After")
        return Response(
            response.status_code,
            response.headers.get("X-Job-Id"),
            float(wait) if wait is not None else None,
            response.text,
        )

    def other(self, key: str) -> "Api":
        """Return a caller with another key, whose responses are kept in the same list."""
        return Api(self.url, key, self.responses, self._lock)
