"""Request `/healthz` continuously from a process of its own, and record the duration of each response."""

import http.client
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from urllib.parse import urlsplit

INTERVAL_SECONDS = 0.1
TIMEOUT_SECONDS = 30.0
MAX_SECONDS = 1.0
"""A slower response is a violation."""
MAX_REPORTED = 20
_STOP_TIMEOUT_SECONDS = TIMEOUT_SECONDS + 10


@dataclass(frozen=True)
class Check:
    """One request: when it was sent (RFC 3339), how long it took, and its status; 0 if none came."""

    at: str
    seconds: float
    status: int


@dataclass
class Health:
    """The checks so far."""

    checks: list[Check] = field(default_factory=list)

    @property
    def slow(self) -> list[Check]:
        """The checks that took too long."""
        return [check for check in self.checks if check.seconds > MAX_SECONDS]

    def summary(self) -> dict[str, object]:
        """Return numbers of the checks, and the slowest response."""
        seconds = [check.seconds for check in self.checks]
        return {
            "checks": len(seconds),
            "not answered with 200": sum(check.status != 200 for check in self.checks),
            "median seconds": round(statistics.median(seconds), 3) if seconds else None,
            "slowest seconds": max(seconds, default=None),
        }

    def violations(self) -> list[str]:
        """Return one sentence for each check that took too long, or one that there were no checks."""
        if not self.checks:
            return ["/healthz was never asked"]
        return [f"/healthz took {check.seconds:.2f} s (status {check.status}) at {check.at}" for check in self.slow][
            :MAX_REPORTED
        ]


@contextmanager
def health_checked(url: str) -> Iterator[Health]:
    """Check during the block. The result is complete after it."""
    health = Health()
    # A new interpreter: this process has many threads, which would delay the clock of the checks.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    is_stopping = context.Event()
    process = context.Process(target=_check, args=(url, sender, is_stopping), daemon=True)
    process.start()
    sender.close()
    try:
        yield health
    finally:
        is_stopping.set()
        if receiver.poll(_STOP_TIMEOUT_SECONDS):
            with suppress(EOFError):  # the process was killed; a run without checks is a violation
                health.checks.extend(Check(*found) for found in receiver.recv())
        process.join(_STOP_TIMEOUT_SECONDS)
        receiver.close()


def _check(url: str, sender: Connection, is_stopping: Event) -> None:
    found: list[tuple[str, float, int]] = []
    while not is_stopping.wait(INTERVAL_SECONDS):
        at, began = datetime.now(UTC).isoformat(timespec="milliseconds"), time.monotonic()
        status = _status(url)
        found.append((at, round(time.monotonic() - began, 3), status))
    sender.send(found)
    sender.close()


def _status(url: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
