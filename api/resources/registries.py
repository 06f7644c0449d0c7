"""`/v1/registries`: external registries. Changes need an admin key; any key may read."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flask import Response
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api import dispatch
from api.authentication import admin_only, audit, caller
from api.owner_slots import remote_slots
from api.push_check import CHECKED_NAME, check_push
from api.request_parsing import parse_credentials, parse_credentials_update, parse_push_account
from api.routing import json_response, list_of, v1_blueprint
from api.schemas.registries import (
    CredentialsRequest,
    DeletedRegistryResponse,
    PauseRequest,
    RecordedRegistryResponse,
    RegistryCheckResponse,
    RegistryRequest,
    RegistryResponse,
    RemovedDefaultResponse,
    present_registry,
)
from shared.commands.cancel import end_all_of_registry
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Registry
from shared.encryption import keyring
from shared.errors import ConflictError, InvalidInputError, sentence
from shared.jobs.due import messages_for_registry
from shared.net.address_rules import ForbiddenAddressError, registry_networks
from shared.net.connections import InvalidProxyError, Proxy
from shared.registries import circuit_breaker
from shared.registries.access import address_of, client_of
from shared.registries.access import check_registry as check
from shared.registries.blob_locations import forget_blob_locations
from shared.registries.credentials import CredentialsError, credential_provider
from shared.registries.defaults import remove_defaults_of_registry
from shared.registries.first_registry import count_unpushed_versions, was_any_registry_recorded
from shared.registries.rows import change_registry, find_registry, lock_with_default, record_registry
from shared.registry.address import InvalidAddressError, RegistryAddress

blueprint = v1_blueprint("registries")

MAX_ATTEMPTS = 3
MAX_AUDITED_DEFAULTS = 100

FIELDS = {
    "default",
    "registry_url",
    "name",
    "verify_tls",
    "ca_certificate",
    "plain_http",
    "transport",
    "proxy_url",
    "max_pushes",
}


@blueprint.post("/registries")
@blueprint.input(RegistryRequest, arg_name="body")
@blueprint.output(RecordedRegistryResponse)
@admin_only
def create_registry(body: RegistryRequest) -> Response:
    """Record a registry. From the first one on, only what is in a registry runs (LONGSHORE_PULL_FALLBACK=auto)."""
    credentials, push_account = parse_credentials(body, _parse_address(body)), parse_push_account(body).given

    def write(session: Session) -> Registry:
        registry = record_registry(
            session, keyring(), _columns(body, set(FIELDS)), credentials, push_credentials=push_account
        )
        audit(
            session,
            "registry.create",
            registry.id,
            url=registry.registry_url,
            credentials=credentials is not None,
            push_credentials=push_account is not None,
            default=registry.is_default,
        )
        return registry

    unpushed = None if was_any_registry_recorded() else _count_unpushed()
    recorded = _write_and_check(body, write, has_push_account=push_account is not None)
    return json_response(recorded.model_copy(update={"unpushed_versions": unpushed}))


@blueprint.get("/registries")
@blueprint.output(list_of(RegistryResponse))
def list_registries() -> Response:
    """List all registries, newest first."""
    with database().reading() as session:
        rows = session.scalars(select(Registry).where(Registry.deleted_at.is_(None)).order_by(Registry.seq.desc()))
        return json_response([present_registry(row) for row in rows])


@blueprint.get("/registries/<registry_id>")
@blueprint.output(RegistryResponse)
def get_registry(registry_id: str) -> Response:
    """Return a registry."""
    with database().reading() as session:
        return json_response(present_registry(find_registry(session, registry_id)))


@blueprint.put("/registries/<registry_id>")
@blueprint.input(RegistryRequest, arg_name="body")
@blueprint.output(RecordedRegistryResponse)
@admin_only
def update_registry(registry_id: str, body: RegistryRequest) -> Response:
    """Change a registry. Omitted credentials stay, unless the address changes; null removes them."""
    credentials, push_account = parse_credentials_update(body, _parse_address(body)), parse_push_account(body)

    def write(session: Session) -> Registry:
        if body.default:
            lock_with_default(session, registry_id)
        registry = find_registry(session, registry_id, for_update=True)
        changes = _columns(body, FIELDS & body.model_fields_set)
        if "plain_http" not in changes and not _allows_plain_http(body):
            changes["plain_http"] = False  # it belonged to the previous address
        change_registry(session, keyring(), registry, changes, credentials, push_account)
        audit(
            session,
            "registry.update",
            registry.id,
            url=registry.registry_url,
            given=sorted(FIELDS & body.model_fields_set),
            credentials=credentials.given is not None,
            has_credentials=registry.credentials is not None,
            has_push_credentials=registry.push_credentials is not None,
            default=registry.is_default,
        )
        return registry

    return json_response(_write_and_check(body, write, has_push_account=push_account.given is not None))


@blueprint.delete("/registries/<registry_id>")
@blueprint.output(DeletedRegistryResponse)
@admin_only
def delete_registry(registry_id: str) -> Response:
    """Delete a registry, and every default that it is. Its queued and running pushes fail."""
    with database().writing() as session:
        registry = find_registry(session, registry_id, for_update=True)
        registry.deleted_at = session.scalar(select(now_ms()))
        registry.credentials = registry.push_credentials = None
        removed = remove_defaults_of_registry(session, registry)
        messages = end_all_of_registry(session, registry.id)
        forget_blob_locations(session, registry.id)
        audit(
            session,
            "registry.delete",
            registry.id,
            url=registry.registry_url,
            defaults=[name or source for source, name in removed[:MAX_AUDITED_DEFAULTS]],
        )
        response = DeletedRegistryResponse(
            **dict(present_registry(registry)),
            removed_defaults=[RemovedDefaultResponse(source=source, name=name) for source, name in removed],
        )
    dispatch.send(messages)
    return json_response(response)


@blueprint.post("/registries/<registry_id>/pause")
@blueprint.input(PauseRequest, arg_name="body")
@blueprint.output(RegistryResponse)
@admin_only
def pause_registry(registry_id: str, body: PauseRequest) -> Response:
    """Start no more pushes to a registry until it is resumed; running ones continue. Idempotent."""
    with database().writing() as session:
        registry = find_registry(session, registry_id, for_update=True)
        circuit_breaker.pause(session, registry, sentence(body.reason or circuit_breaker.DEFAULT_PAUSE_REASON))
        audit(session, "registry.pause", registry.id, reason=body.reason)
        return json_response(present_registry(registry))


@blueprint.post("/registries/<registry_id>/resume")
@blueprint.output(RegistryResponse)
@admin_only
def resume_registry(registry_id: str) -> Response:
    """Push to a registry again, whatever paused it, even if it asked to slow down. Idempotent."""
    with database().writing() as session:
        registry = find_registry(session, registry_id, for_update=True)
        circuit_breaker.resume(session, registry)
        audit(session, "registry.resume", registry.id)
        messages = messages_for_registry(session, registry.id)
        response = json_response(present_registry(registry))
    dispatch.send(messages)
    return response


@blueprint.post("/registries/<registry_id>/check")
@blueprint.input(CredentialsRequest, arg_name="body")
@blueprint.output(RegistryCheckResponse)
@admin_only
def check_registry(registry_id: str, body: CredentialsRequest) -> Response:
    """Ask the registry what these credentials, or its own, may do. Nothing of the request is stored."""
    with database().writing() as session:
        registry = find_registry(session, registry_id)
        audit(session, "registry.check", registry.id)
        credentials = parse_credentials(body, address_of(registry))
        try:
            credentials = credentials or credential_provider(registry).for_reading()
        except CredentialsError as error:
            raise ConflictError(error.message) from None
    with remote_slots().hold(caller().owner), client_of(registry, credentials) as client:
        result = check(client, f"{address_of(registry).path}/{CHECKED_NAME}".lstrip("/"))
    return json_response(RegistryCheckResponse(**vars(result)))


def _columns(body: RegistryRequest, fields: set[str]) -> dict[str, Any]:
    """Return the columns of a registry that these fields of a request set."""
    values = body.model_dump(include=fields)
    return {"is_default" if name == "default" else name: value for name, value in values.items()}


def _write_and_check(
    body: RegistryRequest, write: Callable[[Session], Registry], *, has_push_account: bool
) -> RecordedRegistryResponse:
    """Record or change a registry. Where this sets the default or a push account, check pushing with it."""
    if not (body.default or has_push_account):
        return RecordedRegistryResponse(**dict(present_registry(_write(write))))
    with remote_slots().hold(caller().owner):
        registry = _write(write)
        check = check_push(registry)
    return RecordedRegistryResponse(**dict(present_registry(registry)), can_push=check.can_push, message=check.message)


def _count_unpushed() -> int:
    with database().reading() as session:
        return count_unpushed_versions(session)


def _write(write: Callable[[Session], Registry]) -> Registry:
    for _ in range(MAX_ATTEMPTS):
        # Of two requests that make their registries the default, a unique index rejects one; that one runs again.
        with suppress(IntegrityError), database().writing() as session:
            registry = write(session)
            session.refresh(registry)
            return registry
    raise ConflictError("Other requests set the default registry at the same time; send this one again.")


def _allows_plain_http(body: RegistryRequest) -> bool:
    try:
        RegistryAddress.parse(body.registry_url, plain_http=True)
    except InvalidAddressError:
        return False
    return True


def _parse_address(body: RegistryRequest) -> RegistryAddress:
    """Return the address of the registry. It is resolved, so this is done outside of a transaction.

    Raises:
        InvalidInputError: the address of the registry or its proxy is invalid or forbidden.
    """
    try:
        address = RegistryAddress.parse(body.registry_url, plain_http=body.plain_http)
        registry_networks().check_new_host(address.host, address.port or 443)
        if body.proxy_url is not None:
            proxy = Proxy.parse(body.proxy_url)
            registry_networks().check_new_host(proxy.host, proxy.port)
    except InvalidProxyError as error:
        raise InvalidInputError(str(error)) from None
    except (InvalidAddressError, ForbiddenAddressError) as error:
        raise InvalidInputError(f"registry_url: {error}") from None
    return address
