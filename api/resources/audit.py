"""`GET /v1/audit`: the audit trail (admin)."""

import re
from datetime import datetime
from typing import Annotated, Any

from flask import Response
from pydantic import BeforeValidator, Field

from api.authentication import caller
from api.pagination import PageQuery, page_of, paged
from api.responses import json_response
from api.routing import v1_blueprint
from api.schemas.base import Moment, ResponseModel, Text, Uuid
from shared.audit import entries
from shared.db.clock import rfc3339
from shared.db.engine import database
from shared.db.models import AuditEvent

blueprint = v1_blueprint("audit")

_ZONE = r"([Zz]|[+\- ](?:[01][0-9]|2[0-3]):[0-5][0-9])"
RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9]):([0-5][0-9]|60)(\.[0-9]+)?" + _ZONE
)


def _moment(text: object) -> object:
    """A time of RFC 3339; a plus sign that a URL turned into a space is one again, a leap second the one before it."""
    found = RFC3339.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("must be a time such as 2026-01-31T12:00:00Z (RFC 3339)")
    minute, second, fraction, zone = found.groups()
    offset = "+00:00" if zone in ("Z", "z") else zone.replace(" ", "+")
    second = min(second, "59")
    return datetime.fromisoformat(f"{minute}:{second}{(fraction or '')[:7]}{offset}")


Time = Annotated[datetime, BeforeValidator(_moment), Field(json_schema_extra={"format": "date-time"})]


class AuditQuery(PageQuery):
    """Which entries to list."""

    actor: Text | None = None
    action: Text | None = None
    """A whole action, or what it begins with: `registry.`"""
    target: Text | None = None
    owner: Text | None = None
    since: Time | None = None
    until: Time | None = None


class AuditEventResponse(ResponseModel):
    """One thing that somebody did."""

    id: Uuid
    time: Moment
    actor: str
    key_id: str | None
    address: str | None
    request_id: str | None
    action: str
    target_id: str
    owner: str | None
    detail: dict[str, Any]


class AuditPage(ResponseModel):
    """A page of the audit trail."""

    marker: str | None
    next_link: str | None
    results: list[AuditEventResponse]


@blueprint.get("/audit")
@blueprint.input(AuditQuery, location="query", arg_name="query")
@blueprint.output(AuditPage)
def list_audit(query: AuditQuery) -> Response:
    """Who did what, when, from where; newest first."""
    caller().require_admin()
    rows = entries(
        actor=query.actor,
        action=query.action,
        target=query.target,
        owner=query.owner,
        since=_milliseconds(query.since),
        until=_milliseconds(query.until),
    )
    with database().reading() as session:
        page, marker = page_of(session, rows, AuditEvent.seq, query)
        return json_response(paged([_show(row[0]) for row in page], marker))


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)


def _show(event: AuditEvent) -> AuditEventResponse:
    return AuditEventResponse(
        id=event.id,
        time=rfc3339(event.created_at) or "",
        actor=event.actor,
        key_id=event.key_id,
        address=event.address,
        request_id=event.request_id,
        action=event.action,
        target_id=event.target_id,
        owner=event.owner,
        detail=event.detail,
    )
