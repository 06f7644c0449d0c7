"""Webhooks and their deliveries as operators write and read them."""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from api.schemas.base import Moment, RequestModel, ResponseModel, Text, Uuid
from api.schemas.patterns import WEBHOOK_URL
from shared.db.clock import rfc3339
from shared.db.models import DeliveryState, Webhook, WebhookDelivery
from shared.webhooks.events import PATTERN, EventType, is_pattern
from shared.webhooks.signing import key_of


def _pattern(text: str) -> str:
    if not is_pattern(text):
        raise ValueError(f"must be a type of event, or a pattern such as push.*; there are {', '.join(EventType)}")
    return text


def _secret(text: str) -> str:
    key_of(text)
    return text


EventPattern = Annotated[Text, AfterValidator(_pattern), Field(json_schema_extra={"pattern": PATTERN})]
Secret = Annotated[
    Text,
    StringConstraints(max_length=128),
    AfterValidator(_secret),
    Field(json_schema_extra={"pattern": r"^whsec_(?:[A-Za-z0-9+/]{4}){8,21}$"}),
]
Url = Annotated[
    Text, StringConstraints(min_length=1, max_length=1024), Field(json_schema_extra={"pattern": WEBHOOK_URL})
]
Events = Annotated[list[EventPattern], Field(min_length=1, max_length=50)]


class WebhookRequest(RequestModel):
    """Who is to be told, of what."""

    url: Url
    events: Events = Field(["*"], description="Types of events, or patterns such as `push.*`; all if left out.")
    name: Annotated[Text, StringConstraints(max_length=64)] | None = None
    secret: Secret | None = Field(None, description="`whsec_` and base64 of 24 to 64 bytes; made here if left out.")
    enabled: bool = True


class WebhookUpdate(RequestModel):
    """What changes of a webhook; what is left out stays."""

    url: Url | None = None
    events: Events | None = None
    name: Annotated[Text, StringConstraints(max_length=64)] | None = None
    secret: Secret | None = None
    enabled: bool | None = None


class WebhookResponse(ResponseModel):
    """A webhook. `secret` is shown in the answer that made it only."""

    left_out = frozenset({"secret"})

    id: Uuid
    name: str | None
    url: str
    events: list[str]
    enabled: bool
    disabled_reason: str | None
    created_at: Moment
    updated_at: Moment
    secret: str | None = None


class DeliveryResponse(ResponseModel):
    """One event for one webhook, and how its sending goes."""

    id: Uuid
    type: str
    state: DeliveryState
    attempts: int
    next_attempt_at: Moment | None
    last_status: int | None
    last_error: str | None
    created_at: Moment
    finished_at: Moment | None


class DeliveriesPage(ResponseModel):
    """A page of deliveries."""

    marker: str | None
    next_link: str | None
    results: list[DeliveryResponse]


def show_webhook(webhook: Webhook, secret: str | None = None) -> WebhookResponse:
    """A webhook as operators read it."""
    return WebhookResponse(
        id=webhook.id,
        name=webhook.name,
        url=webhook.url,
        events=webhook.events,
        enabled=webhook.enabled,
        disabled_reason=webhook.disabled_reason,
        created_at=rfc3339(webhook.created_at) or "",
        updated_at=rfc3339(webhook.updated_at) or "",
        secret=secret,
    )


def show_delivery(delivery: WebhookDelivery) -> DeliveryResponse:
    """A delivery as operators read it."""
    return DeliveryResponse(
        id=delivery.id,
        type=delivery.type,
        state=delivery.state,
        attempts=delivery.attempts,
        next_attempt_at=rfc3339(delivery.next_attempt_at),
        last_status=delivery.last_status,
        last_error=delivery.last_error,
        created_at=rfc3339(delivery.created_at) or "",
        finished_at=rfc3339(delivery.finished_at),
    )
