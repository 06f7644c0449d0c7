"""`GET /v1/audit`: the audit trail (admin)."""

import re
from datetime import datetime
from typing import Annotated, Any

from flask import Response
from pydantic import BeforeValidator, WithJsonSchema

from api.authentication import admin_only
from api.pagination import Page, PageQuery, page_response
from api.routing import v1_blueprint
from api.schemas.base import ResponseModel, Text, Timestamp, Uuid
from shared.audit import entries
from shared.db.engine import database
from shared.db.models import AuditEvent

blueprint = v1_blueprint("audit")

RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]):([0-5][0-9]|60)(\.[0-9]+)?"
    r"([Zz]|[+\- ](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)


def _parse_time(text: object) -> int:
    """Return the milliseconds since 1970 of a time in RFC 3339.

    A space is read as the plus sign that URL decoding replaced, and a leap second as the second before it.
    """
    match = RFC3339.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z (RFC 3339)")
    minute, second, fraction, zone = match.groups()
    offset = "+00:00" if zone in ("Z", "z") else zone.replace(" ", "+")
    text = f"{minute}:{min(second, '59')}{(fraction or '')[:7]}{offset}"
    return int(datetime.fromisoformat(text).timestamp() * 1000)


Time = Annotated[int, BeforeValidator(_parse_time), WithJsonSchema({"type": "string", "format": "date-time"})]


class AuditQuery(PageQuery):
    """The events to list."""

    actor: Text | None = None
    action: Text | None = None
    """An action, or the beginning of actions that ends with a dot: `registry.`"""
    target: Text | None = None
    owner: Text | None = None
    since: Time | None = None
    until: Time | None = None


class AuditEventResponse(ResponseModel):
    """An event of the audit trail."""

    id: Uuid
    time: Timestamp
    actor: str
    key_id: str | None
    address: str | None
    request_id: str | None
    action: str
    target_id: str
    owner: str | None
    detail: dict[str, Any]


@blueprint.get("/audit")
@blueprint.input(AuditQuery, location="query", arg_name="query")
@blueprint.output(Page[AuditEventResponse])
@admin_only
def list_audit(query: AuditQuery) -> Response:
    """List audit events: who did what, when and from where; newest first."""
    rows = entries(**query.model_dump(exclude={"limit", "marker"}))
    with database().reading() as session:
        return page_response(session, rows, AuditEvent.seq, query, lambda events: [_present(event) for event in events])


def _present(event: AuditEvent) -> AuditEventResponse:
    return AuditEventResponse(
        id=event.id,
        time=event.created_at,
        actor=event.actor,
        key_id=event.key_id,
        address=event.address,
        request_id=event.request_id,
        action=event.action,
        target_id=event.target_id,
        owner=event.owner,
        detail=event.detail,
    )
