"""Following a job: what its callers have not been told yet, as server-sent events (HTML standard, section 9.2).

An event's id says all that was told up to it, so whoever comes back with it misses nothing and hears nothing twice,
from whichever process.
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
from sqlalchemy.orm import Session

from api.presenters import shown_job
from api.schemas.jobs import JobResponse
from shared.db.engine import database
from shared.db.models import Build, Job, JobKind

log = structlog.get_logger(__name__)

POLL_INTERVAL_SECONDS = 1.0
LOG_CHARACTERS = 65_536
"""The longest text of one `log` event."""
TOLD = re.compile(r"([0-9]{1,9})\.([0-9a-f]{0,16})\.([0-9a-f]{0,16})")
KEEPALIVE = ": the job goes on\n\n"


@dataclass(frozen=True)
class SentSoFar:
    """How far a caller knows of a job: so many characters of the log, and the digests of what stood in events."""

    characters: int = 0
    state: str = ""
    progress: str = ""

    @classmethod
    def read(cls, event_id: str) -> "SentSoFar":
        """What a `Last-Event-ID` says; one that is none of ours says nothing."""
        found = TOLD.fullmatch(event_id)
        return cls(int(found[1]), found[2], found[3]) if found else cls()

    def __str__(self) -> str:
        return f"{self.characters}.{self.state}.{self.progress}"


@dataclass(frozen=True)
class Event:
    """One event, and what is told with it."""

    kind: str
    data: dict[str, Any]
    told: SentSoFar

    @property
    def is_a_part(self) -> bool:
        """Whether the log goes on right after it."""
        return self.kind == "log" and len(self.data["text"]) == LOG_CHARACTERS

    def __str__(self) -> str:
        return f"id: {self.told}\nevent: {self.kind}\ndata: {json.dumps(self.data)}\n\n"


def next_events(job_id: str, told: SentSoFar) -> tuple[list[Event], bool]:
    """What is new since `told`, and whether nothing more will come after it."""
    with database().reading() as session:
        job = session.scalars(select(Job).where(Job.id == job_id)).one()
        # The state before the log: what ended has written its log to the end by then.
        shown = shown_job(session, job)
        text, characters = _log_after(session, job, told.characters)
    events = []
    if text:
        told = replace(told, characters=characters)
        events.append(Event("log", {"offset": characters - len(text), "text": text}, told))
    more = any(event.is_a_part for event in events)
    progress, state = _progress_of(shown), _state_of(shown)
    if any(progress.values()) and _digest(progress) != told.progress:
        told = replace(told, progress=_digest(progress))
        events.append(Event("progress", progress, told))
    if not more and _digest(state) != told.state:
        told = replace(told, state=_digest(state))
        events.append(Event("state", state, told))
    return events, not more and all(part.state.ended for part in (shown, *shown.children))


def follow(
    job_id: str, events: list[Event], ended: bool, told: SentSoFar, *, keepalive_seconds: float
) -> Iterator[str]:
    """The first events and those that come, until the job and its parts have ended."""
    spoke = time.monotonic()
    while True:
        for event in events:
            told = event.told
            yield str(event)
            spoke = time.monotonic()
        if ended:
            return
        if time.monotonic() - spoke >= keepalive_seconds:
            yield KEEPALIVE  # it also finds out whether anybody still listens
            spoke = time.monotonic()
        if not any(event.is_a_part for event in events):
            time.sleep(min(POLL_INTERVAL_SECONDS, keepalive_seconds))
        try:
            events, ended = next_events(job_id, told)
        except SQLAlchemyError as error:
            # What was told stands; the next look may find the database again.
            log.warning("the database did not answer a follower", job_id=job_id, error=type(error).__name__)
            events = []


def _log_after(session: Session, job: Job, characters: int) -> tuple[str, int]:
    """What a compile's log has beyond so many characters, and how many they are then."""
    if job.kind != JobKind.COMPILE or job.build_id is None:
        return "", characters
    text = session.scalar(
        select(func.substr(Build.log, characters + 1, LOG_CHARACTERS)).where(Build.id == job.build_id)
    )
    return text or "", characters + len(text or "")


def _state_of(shown: JobResponse) -> dict[str, Any]:
    state = shown.model_dump(mode="json", by_alias=True)
    for part in (state, *state["children"]):
        part.pop("progress", None)
        part.pop("refresh", None)
    return state


def _progress_of(shown: JobResponse) -> dict[str, Any]:
    refresh = {} if shown.refresh is None else {"refresh": shown.refresh.model_dump(mode="json")}
    return {
        **refresh,
        "pushes": [
            {"job_id": part.id, "registry_id": part.registry_id, **part.progress.model_dump()}
            for part in (shown, *shown.children)
            if part.progress is not None
        ],
    }


def _digest(data: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
