"""The interface as callers use it: each request an answer, or none."""

import json
import threading
from dataclasses import dataclass, field
from typing import Any

import requests

SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 where nothing did."""

    status: int
    job_id: str | None = None
    retry_after: float | None = None
    text: str = ""

    @property
    def accepted(self) -> bool:
        """Whether it is a promise."""
        return 200 <= self.status < 300

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.text)


@dataclass
class Api:
    """A caller with a key. Every answer is kept, so that secrets can be looked for in them."""

    url: str
    key: str = field(repr=False)
    answers: list[str] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        idempotency_key: str | None = None,
        seconds: float = SECONDS,
    ) -> Answer:
        """Send one request; give up on its answer after so many seconds."""
        headers = {"Authorization": f"Simple {self.key}", "Connection": "close"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        try:
            response = requests.request(method, self.url + path, json=body, headers=headers, timeout=seconds)
        except requests.RequestException:
            return Answer(0)
        with self._lock:
            self.answers.append(f"{response.headers}\n{response.text}")
        wait = response.headers.get("Retry-After")
        return Answer(
            response.status_code,
            response.headers.get("X-Job-Id"),
            float(wait) if wait is not None else None,
            response.text,
        )

    def other(self, key: str) -> "Api":
        """Another caller, whose answers are kept with these."""
        return Api(self.url, key, self.answers, self._lock)
