"""The events that webhooks are told of, and how they look: CloudEvents 1.0 in JSON (structured mode).

The outbox: an event becomes a row for each webhook that wants it, in the transaction in which it happened.
"""

import json
import re
import uuid
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.clock import now_ms, rfc3339
from shared.db.models import Algorithm, Build, ImagePush, PushState, Registry, Version, Webhook, WebhookDelivery
from shared.db.models.pushes import STALLED
from shared.settings import settings

PREFIX = "longshore."
CONTENT_TYPE = "application/cloudevents+json"


class EventType(StrEnum):
    """What can happen; on the wire `longshore.` stands in front (CloudEvents: `type`)."""

    PUSH_SUCCEEDED = "push.succeeded"
    PUSH_FAILED = "push.failed"
    PUSH_CANCELLED = "push.cancelled"
    PUSH_SUPERSEDED = "push.superseded"
    PUSH_RETRYING = "push.retrying"
    PUSH_STALLED = "push.stalled"
    PUSH_MISSING = "push.missing"
    """What the registry confirmed is gone from it."""
    PUSH_FOUND = "push.found"
    """What was missing is there again."""
    BUILD_SUCCEEDED = "build.succeeded"
    BUILD_FAILED = "build.failed"
    BUILD_CANCELLED = "build.cancelled"
    REGISTRY_PAUSED = "registry.paused"
    REGISTRY_RESUMED = "registry.resumed"
    PING = "ping"
    """Sent when somebody tests the webhook."""


FAMILIES = tuple(dict.fromkeys(event.partition(".")[0] for event in EventType if "." in event))
_NAMED = "|".join([*(rf"{family}\.\*" for family in FAMILIES), *(re.escape(event) for event in EventType)])
PATTERN = rf"^(?:{re.escape(PREFIX)})?(?:\*|{_NAMED})$"
"""How one says which events one wants: `push.failed`, `push.*`, `*`; with the prefix or without."""


def is_pattern(text: str) -> bool:
    """Whether a text stands for event types."""
    return re.search(PATTERN, text) is not None


def matches(pattern: str, event: EventType) -> bool:
    """Whether a pattern is for an event."""
    wanted = pattern.removeprefix(PREFIX)
    return wanted in ("*", event.value) or wanted == f"{event.partition('.')[0]}.*"


def cloud_event(event_id: str, event: EventType, subject: str, at: int, data: dict[str, Any]) -> str:
    """The event as it goes over the wire (CloudEvents 1.0, JSON event format)."""
    return json.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": settings().public_url or "longshore",
            "type": f"{PREFIX}{event}",
            "subject": subject,
            "time": rfc3339(at),
            "datacontenttype": "application/json",
            "data": data,
        }
    )


OF_PUSH_STATE = {
    PushState.SUCCEEDED: EventType.PUSH_SUCCEEDED,
    PushState.FAILED: EventType.PUSH_FAILED,
    PushState.CANCELLED: EventType.PUSH_CANCELLED,
}
OF_KIND = {
    "retry": EventType.PUSH_RETRYING,
    "superseded": EventType.PUSH_SUPERSEDED,
    "missing": EventType.PUSH_MISSING,
    "found": EventType.PUSH_FOUND,
}


def emit(session: Session, webhook: Webhook, event: EventType, subject: str, data: dict[str, Any]) -> WebhookDelivery:
    """Put an event for one webhook into the outbox; it is sent when the transaction is committed."""
    now = session.scalars(select(now_ms())).one()
    event_id = str(uuid.uuid4())
    body = cloud_event(event_id, event, subject, now, data)
    delivery = WebhookDelivery(id=event_id, webhook_id=webhook.id, type=event, body=body, next_attempt_at=now)
    session.add(delivery)
    session.flush()
    return delivery


def emit_push(session: Session, push_id: str, kind: str, message: str | None = None) -> None:
    """Tell of what was just recorded of a push (the kinds of `PushEvent`); most of the time nobody wants to know."""
    listening = _listening(session)
    if not listening:
        return
    push, version, algorithm = session.execute(
        select(ImagePush, Version, Algorithm)
        .join(Version, Version.id == ImagePush.version_id)
        .join(Algorithm, Algorithm.id == Version.algorithm_id)
        .where(ImagePush.id == push_id)
        .execution_options(populate_existing=True)
    ).one()
    event = _push_event(kind, PushState(push.state))
    if event is None:
        return
    data = {
        **_of_version(algorithm, version.git_hash),
        "registry_id": push.registry_id,
        "registry_url": push.registry_url,
        "image": push.image,
        "digest": push.digest,
        "status": push.state,
        "status_message": push.message if message is None else message,
        "attempt": push.attempt,
        "job_id": push.job_id,
    }
    if kind.startswith(STALLED):
        data["stall"] = kind.removeprefix(STALLED)
    _tell(session, listening, event, f"{algorithm.path}@{version.git_hash}", data)


def emit_build(session: Session, build_id: str, event: EventType) -> None:
    """Tell of the end of a build."""
    listening = _listening(session)
    if not listening:
        return
    build, algorithm = session.execute(
        select(Build, Algorithm)
        .join(Algorithm, Algorithm.id == Build.algorithm_id)
        .where(Build.id == build_id)
        .execution_options(populate_existing=True)
    ).one()
    data = {
        **_of_version(algorithm, build.commit_sha),
        "build_id": build.id,
        "status": build.status,
        "status_message": build.message,
        "job_id": build.job_id,
    }
    _tell(session, listening, event, f"{algorithm.path}@{build.commit_sha}", data)


def emit_registry(session: Session, registry: Registry, event: EventType, reason: str) -> None:
    """Tell that a registry was paused or resumed, and why."""
    data = {"registry_id": registry.id, "registry_url": registry.registry_url, "name": registry.name, "reason": reason}
    _tell(session, _listening(session), event, registry.id, data)


def _push_event(kind: str, state: PushState) -> EventType | None:
    if kind == "ended":
        return OF_PUSH_STATE.get(state)
    if kind.startswith(STALLED):
        return EventType.PUSH_STALLED
    return OF_KIND.get(kind)


def _of_version(algorithm: Algorithm, git_hash: str) -> dict[str, Any]:
    return {"algorithm": algorithm.path, "algorithm_id": algorithm.id, "git_hash": git_hash}


def _listening(session: Session) -> list[Webhook]:
    return list(session.scalars(_LISTENING))


_LISTENING = select(Webhook).where(Webhook.enabled, Webhook.deleted_at.is_(None))


def _tell(session: Session, listening: list[Webhook], event: EventType, subject: str, data: dict[str, Any]) -> None:
    for webhook in listening:
        if any(matches(pattern, event) for pattern in webhook.events):
            emit(session, webhook, event, subject, data)
