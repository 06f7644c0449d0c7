"""The events of a job as a stream of server-sent events (HTML standard, section 9.2).

The id of an event says how far the stream has got. A client that reconnects with it, to any process, gets every later
event and no earlier one.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import override

from api.presenters import present_job
from api.schemas.jobs import JobResponse
from shared.db.engine import database
from shared.db.models import Build, Job, JobKind
from shared.keys import Caller, is_revoked

log = structlog.get_logger(__name__)

POLL_INTERVAL_SECONDS = 1.0
MAX_LOG_CHARACTERS = 65_536
EVENT_ID = re.compile(r"([0-9]{1,9})\.([0-9a-f]{0,16})\.([0-9a-f]{0,16})")
KEEPALIVE = ": the job goes on\n\n"


@dataclass(frozen=True)
class StreamPosition:
    """The position of a client in a stream: characters of the log, and digests of the last `state` and `progress`."""

    characters: int = 0
    state: str = ""
    progress: str = ""

    @classmethod
    def parse(cls, event_id: str) -> "StreamPosition":
        """Return the position of a `Last-Event-ID`; the beginning if the id is invalid."""
        match = EVENT_ID.fullmatch(event_id)
        return cls(int(match[1]), match[2], match[3]) if match else cls()

    @override
    def __str__(self) -> str:
        return f"{self.characters}.{self.state}.{self.progress}"


@dataclass(frozen=True)
class Event:
    """One event, and the position after it."""

    kind: str
    data: dict[str, Any]
    position: StreamPosition

    @property
    def is_partial_log(self) -> bool:
        return self.kind == "log" and len(self.data["text"]) == MAX_LOG_CHARACTERS

    @override
    def __str__(self) -> str:
        return f"id: {self.position}\nevent: {self.kind}\ndata: {json.dumps(self.data)}\n\n"


def next_events(job_id: str, position: StreamPosition, *, of_all_algorithms: bool) -> tuple[list[Event], bool]:
    """Return the events after a position, and whether they are the last ones. Children are those of `present_job`."""
    with database().reading() as session:
        job = session.scalars(select(Job).where(Job.id == job_id)).one()
        # The state is read before the log: a job that has ended has written all of its log.
        response = present_job(session, job, of_all_algorithms=of_all_algorithms)
        text = ""
        if job.kind == JobKind.COMPILE and job.build_id is not None:
            rest = func.substr(Build.log, position.characters + 1, MAX_LOG_CHARACTERS)
            text = session.scalar(select(rest).where(Build.id == job.build_id)) or ""
    events = []
    if text:
        offset = position.characters
        position = replace(position, characters=offset + len(text))
        events.append(Event("log", {"offset": offset, "text": text}, position))
    has_more_log = any(event.is_partial_log for event in events)
    progress, state = _progress_of(response), _state_of(response)
    if any(progress.values()) and _digest(progress) != position.progress:
        position = replace(position, progress=_digest(progress))
        events.append(Event("progress", progress, position))
    if not has_more_log and _digest(state) != position.state:
        position = replace(position, state=_digest(state))
        events.append(Event("state", state, position))
    return events, not has_more_log and all(part.state.ended for part in (response, *response.children))


def stream_events(
    job_id: str,
    events: list[Event],
    ended: bool,
    position: StreamPosition,
    *,
    caller: Caller,
    keepalive_seconds: float,
) -> Iterator[str]:
    """Yield these events and later ones, until the job and its children have ended, or the caller's key is revoked."""
    sent_at = time.monotonic()
    while True:
        for event in events:
            position = event.position
            yield str(event)
            sent_at = time.monotonic()
        if ended:
            return
        if time.monotonic() - sent_at >= keepalive_seconds:
            yield KEEPALIVE  # fails if the client has disconnected
            sent_at = time.monotonic()
        if not any(event.is_partial_log for event in events):
            time.sleep(min(POLL_INTERVAL_SECONDS, keepalive_seconds))
        try:
            if is_revoked(database(), caller.key_id):
                return
            events, ended = next_events(job_id, position, of_all_algorithms=caller.admin)
        except SQLAlchemyError as error:
            # The stream goes on from its position when the database responds again.
            log.warning("event_stream_database_error", job_id=job_id, error=type(error).__name__)
            events = []


def _state_of(response: JobResponse) -> dict[str, Any]:
    state = response.model_dump(mode="json", by_alias=True)
    for part in (state, *state["children"]):
        part.pop("progress", None)
        part.pop("refresh", None)
    return state


def _progress_of(response: JobResponse) -> dict[str, Any]:
    return {
        **({} if response.refresh is None else {"refresh": response.refresh.model_dump(mode="json")}),
        "pushes": [
            {"job_id": part.id, "registry_id": part.registry_id, **part.progress.model_dump()}
            for part in (response, *response.children)
            if part.progress is not None
        ],
    }


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
