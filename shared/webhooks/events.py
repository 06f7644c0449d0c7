"""The events of webhooks, as CloudEvents 1.0 in JSON (structured mode), and how they enter the outbox.

An event becomes a delivery row for each webhook that subscribes to it, in the transaction in which it happens.
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
    """The types of events; CloudEvents have `longshore.` in front (`type`)."""

    PUSH_SUCCEEDED = "push.succeeded"
    PUSH_FAILED = "push.failed"
    PUSH_CANCELLED = "push.cancelled"
    PUSH_SUPERSEDED = "push.superseded"
    PUSH_RETRYING = "push.retrying"
    PUSH_STALLED = "push.stalled"
    PUSH_MISSING = "push.missing"
    """The registry has lost an image that it confirmed."""
    PUSH_FOUND = "push.found"
    BUILD_SUCCEEDED = "build.succeeded"
    BUILD_FAILED = "build.failed"
    BUILD_CANCELLED = "build.cancelled"
    REGISTRY_PAUSED = "registry.paused"
    REGISTRY_RESUMED = "registry.resumed"
    PING = "ping"


FAMILIES = tuple(dict.fromkeys(event.partition(".")[0] for event in EventType if "." in event))
_NAMES = "|".join([*(rf"{family}\.\*" for family in FAMILIES), *(re.escape(event) for event in EventType)])
PATTERN = rf"^(?:{re.escape(PREFIX)})?(?:\*|{_NAMES})$"
"""Patterns of subscriptions: `push.failed`, `push.*` or `*`, with or without the prefix."""
_EVENT_OF_STATE = {
    PushState.SUCCEEDED: EventType.PUSH_SUCCEEDED,
    PushState.FAILED: EventType.PUSH_FAILED,
    PushState.CANCELLED: EventType.PUSH_CANCELLED,
}
_EVENT_OF_KIND = {
    "retry": EventType.PUSH_RETRYING,
    "superseded": EventType.PUSH_SUPERSEDED,
    "missing": EventType.PUSH_MISSING,
    "found": EventType.PUSH_FOUND,
}
_ENABLED_WEBHOOKS = select(Webhook).where(Webhook.enabled, Webhook.deleted_at.is_(None))


def is_pattern(text: str) -> bool:
    return re.search(PATTERN, text) is not None


def emit(session: Session, webhook: Webhook, event: EventType, subject: str, data: dict[str, Any]) -> WebhookDelivery:
    """Add an event for one webhook to the outbox; it is sent after the transaction is committed."""
    now = session.scalars(select(now_ms())).one()
    event_id = str(uuid.uuid4())
    cloud_event = {
        "specversion": "1.0",
        "id": event_id,
        "source": settings().public_url or "longshore",
        "type": f"{PREFIX}{event}",
        "subject": subject,
        "time": rfc3339(now),
        "datacontenttype": "application/json",
        "data": data,
    }
    delivery = WebhookDelivery(
        id=event_id, webhook_id=webhook.id, type=event, body=json.dumps(cloud_event), next_attempt_at=now
    )
    session.add(delivery)
    session.flush()
    return delivery


def emit_push(session: Session, push_id: str, kind: str, message: str | None = None) -> None:
    """Emit the event for a kind of `PushEvent`, if there is one; `message` replaces that of the push."""
    webhooks = _enabled_webhooks(session)
    if not webhooks:
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
        **_version_data(algorithm, version.git_hash),
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
    _emit_to_subscribers(session, webhooks, event, f"{algorithm.path}@{version.git_hash}", data)


def emit_build(session: Session, build_id: str, event: EventType) -> None:
    webhooks = _enabled_webhooks(session)
    if not webhooks:
        return
    build, algorithm = session.execute(
        select(Build, Algorithm)
        .join(Algorithm, Algorithm.id == Build.algorithm_id)
        .where(Build.id == build_id)
        .execution_options(populate_existing=True)
    ).one()
    data = {
        **_version_data(algorithm, build.commit_sha),
        "build_id": build.id,
        "status": build.status,
        "status_message": build.message,
        "job_id": build.job_id,
    }
    _emit_to_subscribers(session, webhooks, event, f"{algorithm.path}@{build.commit_sha}", data)


def emit_registry(session: Session, registry: Registry, event: EventType, reason: str) -> None:
    _emit_to_subscribers(
        session,
        _enabled_webhooks(session),
        event,
        registry.id,
        {"registry_id": registry.id, "registry_url": registry.registry_url, "name": registry.name, "reason": reason},
    )


def _push_event(kind: str, state: PushState) -> EventType | None:
    if kind == "ended":
        return _EVENT_OF_STATE.get(state)
    if kind.startswith(STALLED):
        return EventType.PUSH_STALLED
    return _EVENT_OF_KIND.get(kind)


def _version_data(algorithm: Algorithm, git_hash: str) -> dict[str, Any]:
    return {"algorithm": algorithm.path, "algorithm_id": algorithm.id, "git_hash": git_hash}


def _enabled_webhooks(session: Session) -> list[Webhook]:
    return list(session.scalars(_ENABLED_WEBHOOKS))


def _emit_to_subscribers(
    session: Session, webhooks: list[Webhook], event: EventType, subject: str, data: dict[str, Any]
) -> None:
    patterns = {"*", event.value, f"{event.partition('.')[0]}.*"}
    for webhook in webhooks:
        if any(pattern.removeprefix(PREFIX) in patterns for pattern in webhook.events):
            emit(session, webhook, event, subject, data)
