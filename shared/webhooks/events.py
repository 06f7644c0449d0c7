"""The events that webhooks are told of, and how they look: CloudEvents 1.0 in JSON (structured mode)."""

import json
import re
from enum import StrEnum
from typing import Any

from shared.clock import rfc3339
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
