"""`/v1/webhooks`: webhooks and their deliveries (admin)."""

import re
import uuid

from flask import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.authentication import admin_only, audit
from api.pagination import Page, PageQuery, filters, page_response
from api.routing import json_response, list_of, no_content, v1_blueprint
from api.schemas.patterns import WEBHOOK_URL
from api.schemas.webhooks import (
    DeliveryResponse,
    WebhookRequest,
    WebhookResponse,
    WebhookUpdate,
    present_delivery,
    present_webhook,
)
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import DeliveryState, Webhook, WebhookDelivery
from shared.encryption import keyring
from shared.errors import ConflictError, InvalidInputError, NotFoundError
from shared.webhooks.deliveries import InvalidTargetError, check_target, fail_pending, redeliver
from shared.webhooks.events import EventType, emit
from shared.webhooks.signing import encrypt_secret, new_secret

blueprint = v1_blueprint("webhooks")


class DeliveriesQuery(PageQuery):
    """The deliveries to list."""

    state: DeliveryState | None = None


@blueprint.post("/webhooks")
@blueprint.input(WebhookRequest, arg_name="body")
@blueprint.output(WebhookResponse)
@admin_only
def create_webhook(body: WebhookRequest) -> Response:
    """Create a webhook. Only this response contains its secret, which is generated unless the request has one."""
    _check_url(body.url)
    secret = body.secret or new_secret()
    webhook = Webhook(id=str(uuid.uuid4()), name=body.name, url=body.url, events=body.events, enabled=body.enabled)
    webhook.secret = encrypt_secret(keyring(), webhook.id, secret)
    with database().writing() as session:
        session.add(webhook)
        session.flush()
        audit(session, "webhook.create", webhook.id, url=webhook.url, events=webhook.events)
        session.refresh(webhook)
        return json_response(present_webhook(webhook, secret))


@blueprint.get("/webhooks")
@blueprint.output(list_of(WebhookResponse))
@admin_only
def list_webhooks() -> Response:
    """List all webhooks, newest first."""
    with database().reading() as session:
        rows = session.scalars(select(Webhook).where(Webhook.deleted_at.is_(None)).order_by(Webhook.seq.desc()))
        return json_response([present_webhook(row) for row in rows])


@blueprint.get("/webhooks/<webhook_id>")
@blueprint.output(WebhookResponse)
@admin_only
def get_webhook(webhook_id: str) -> Response:
    """Return a webhook."""
    with database().reading() as session:
        return json_response(present_webhook(_find(session, webhook_id)))


@blueprint.put("/webhooks/<webhook_id>")
@blueprint.input(WebhookUpdate, arg_name="body")
@blueprint.output(WebhookResponse)
@admin_only
def update_webhook(webhook_id: str, body: WebhookUpdate) -> Response:
    """Change a webhook; omitted fields stay. A disabled webhook gets no events, not even pending ones."""
    if body.url is not None:
        _check_url(body.url)
    with database().writing() as session:
        webhook = _find(session, webhook_id, locked=True)
        webhook.url = body.url or webhook.url
        webhook.events = body.events or webhook.events
        if "name" in body.model_fields_set:
            webhook.name = body.name
        if body.secret is not None:
            webhook.secret = encrypt_secret(keyring(), webhook.id, body.secret)
        if body.enabled is not None:
            webhook.enabled, webhook.disabled_reason = body.enabled, None
        if not webhook.enabled:
            fail_pending(session, webhook.id, "The webhook was disabled.")
        session.flush()
        session.refresh(webhook)
        audit(session, "webhook.update", webhook.id, given=sorted(body.model_fields_set))
        return json_response(present_webhook(webhook))


@blueprint.delete("/webhooks/<webhook_id>")
@blueprint.output({}, status_code=204)
@admin_only
def delete_webhook(webhook_id: str) -> Response:
    """Delete a webhook. Its pending events are not sent."""
    with database().writing() as session:
        webhook = _find(session, webhook_id, locked=True)
        webhook.deleted_at = session.scalar(select(now_ms()))
        webhook.enabled = False
        fail_pending(session, webhook.id, "The webhook was deleted.")
        audit(session, "webhook.delete", webhook.id, url=webhook.url)
    return no_content()


@blueprint.post("/webhooks/<webhook_id>/test")
@blueprint.output(DeliveryResponse)
@admin_only
def test_webhook(webhook_id: str) -> Response:
    """Send a `ping` within seconds; the response is its delivery."""
    with database().writing() as session:
        webhook = _find(session, webhook_id)
        _require_enabled(webhook)
        return json_response(
            present_delivery(emit(session, webhook, EventType.PING, webhook.id, {"webhook_id": webhook.id}))
        )


@blueprint.get("/webhooks/<webhook_id>/deliveries")
@blueprint.input(DeliveriesQuery, location="query", arg_name="query")
@blueprint.output(Page[DeliveryResponse])
@admin_only
def list_deliveries(webhook_id: str, query: DeliveriesQuery) -> Response:
    """List the past and pending deliveries of a webhook, newest first."""
    with database().reading() as session:
        rows = select(WebhookDelivery).where(
            WebhookDelivery.webhook_id == _find(session, webhook_id).id, *filters((WebhookDelivery.state, query.state))
        )
        return page_response(
            session, rows, WebhookDelivery.seq, query, lambda deliveries: [present_delivery(row) for row in deliveries]
        )


@blueprint.post("/webhooks/<webhook_id>/deliveries/<delivery_id>/retry")
@blueprint.output(DeliveryResponse)
@admin_only
def retry_delivery(webhook_id: str, delivery_id: str) -> Response:
    """Send the event of an ended delivery again."""
    with database().writing() as session:
        webhook = _find(session, webhook_id)
        delivery = session.scalar(
            select(WebhookDelivery)
            .where(WebhookDelivery.id == delivery_id, WebhookDelivery.webhook_id == webhook.id)
            .with_for_update()
        )
        if delivery is None:
            raise NotFoundError(f"The webhook has no delivery with the id {delivery_id!r}.")
        _require_enabled(webhook)
        if delivery.state == DeliveryState.PENDING:
            raise ConflictError("The delivery is pending: it will be sent without a retry.")
        redeliver(session, delivery)
        return json_response(present_delivery(delivery))


def _find(session: Session, webhook_id: str, *, locked: bool = False) -> Webhook:
    query = select(Webhook).where(Webhook.id == webhook_id, Webhook.deleted_at.is_(None))
    webhook = session.scalar(query.with_for_update() if locked else query)
    if webhook is None:
        raise NotFoundError(f"No webhook has the id {webhook_id!r}; GET /v1/webhooks lists them.")
    return webhook


def _require_enabled(webhook: Webhook) -> None:
    if not webhook.enabled:
        raise ConflictError("The webhook is disabled; enable it first.")


def _check_url(url: str) -> None:
    try:
        check_target(url)
    except InvalidTargetError as error:
        raise InvalidInputError(f"url: {error}") from None
    # `check_target` has checked whether plain HTTP is allowed. The form is the one in the OpenAPI document.
    if not re.search(WEBHOOK_URL, url) and not re.search(WEBHOOK_URL, url.replace("http://", "https://", 1)):
        raise InvalidInputError(
            "url: The host consists of letters, digits, hyphens and dots, or is an IPv4 address. In path and query, "
            "characters other than letters, digits and -._~+@=,:!$&'()*;/% are written as %XX."
        )
