"""`/v1/registries`: the external registries. Changes need an admin key, reading needs any."""

from flask import Response
from sqlalchemy import select

from api import dispatch
from api.authentication import audit, caller
from api.credentials import given_credentials
from api.responses import json_response
from api.routing import list_of, v1_blueprint
from api.schemas.registries import (
    CredentialsRequest,
    PauseRequest,
    RegistryCheckResponse,
    RegistryRequest,
    RegistryResponse,
    show_registry,
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
from shared.registries.blob_locations import forget_blob_locations
from shared.registries.check import check_registry as check
from shared.registries.client import address_of, client_of
from shared.registries.credentials import CredentialsError, credential_provider
from shared.registries.rows import change_registry, find_registry, record_registry
from shared.registry.address import InvalidAddressError, RegistryAddress

blueprint = v1_blueprint("registries")

CHECKED_REPOSITORY = "longshore-check"
STATE = {"registry_url", "name", "verify_tls", "ca_certificate", "plain_http", "transport", "proxy_url", "max_pushes"}


@blueprint.post("/registries")
@blueprint.input(RegistryRequest, arg_name="body")
@blueprint.output(RegistryResponse)
def create_registry(body: RegistryRequest) -> Response:
    """Record a registry."""
    caller().require_admin()
    given = given_credentials(body, _address(body))
    with database().writing() as session:
        registry = record_registry(session, keyring(), body.model_dump(include=STATE), given)
        audit(session, "registry.create", registry.id, url=registry.registry_url, credentials=given is not None)
        shown = show_registry(registry)
    return json_response(shown)


@blueprint.get("/registries")
@blueprint.output(list_of(RegistryResponse))
def list_registries() -> Response:
    """Every recorded registry, newest first."""
    with database().reading() as session:
        rows = session.scalars(select(Registry).where(Registry.deleted_at.is_(None)).order_by(Registry.seq.desc()))
        return json_response([show_registry(row) for row in rows])


@blueprint.get("/registries/<registry_id>")
@blueprint.output(RegistryResponse)
def get_registry(registry_id: str) -> Response:
    """One registry."""
    with database().reading() as session:
        return json_response(show_registry(find_registry(session, registry_id)))


@blueprint.put("/registries/<registry_id>")
@blueprint.input(RegistryRequest, arg_name="body")
@blueprint.output(RegistryResponse)
def update_registry(registry_id: str, body: RegistryRequest) -> Response:
    """Change a registry. Credentials left out stay, unless the registry is another one now; null removes them."""
    caller().require_admin()
    given = given_credentials(body, _address(body))
    named = {"registry_username", "registry_password", "registry_auth"} & body.model_fields_set
    with database().writing() as session:
        registry = find_registry(session, registry_id, for_update=True)
        # An option that is left out stays as it is.
        state = body.model_dump(include=STATE & body.model_fields_set)
        if "plain_http" not in state and not _may_be_plain(body):
            state["plain_http"] = False  # it was about the address before
        change_registry(session, keyring(), registry, state, given, remove_credentials=bool(named) and given is None)
        audit(
            session,
            "registry.update",
            registry.id,
            url=registry.registry_url,
            given=sorted(STATE & body.model_fields_set),
            credentials=given is not None,
            has_credentials=registry.credentials is not None,
        )
        shown = show_registry(registry)
    return json_response(shown)


@blueprint.delete("/registries/<registry_id>")
@blueprint.output(RegistryResponse)
def delete_registry(registry_id: str) -> Response:
    """Delete a registry; its waiting and running pushes end as failed."""
    caller().require_admin()
    with database().writing() as session:
        registry = find_registry(session, registry_id, for_update=True)
        registry.deleted_at = session.scalar(select(now_ms()))
        registry.credentials = None
        freed = end_all_of_registry(session, registry.id)
        forget_blob_locations(session, registry.id)
        audit(session, "registry.delete", registry.id, url=registry.registry_url)
        shown = show_registry(registry)
    dispatch.send(freed)
    return json_response(shown)


@blueprint.post("/registries/<registry_id>/pause")
@blueprint.input(PauseRequest, arg_name="body")
@blueprint.output(RegistryResponse)
def pause_registry(registry_id: str, body: PauseRequest) -> Response:
    """Begin no more pushes to a registry until it is resumed; those that run go on. Twice is as good as once."""
    caller().require_admin()
    with database().writing() as session:
        registry = find_registry(session, registry_id, for_update=True)
        circuit_breaker.pause(session, registry, sentence(body.reason or circuit_breaker.DEFAULT_PAUSE_REASON))
        audit(session, "registry.pause", registry.id, reason=body.reason)
        shown = show_registry(registry)
    return json_response(shown)


@blueprint.post("/registries/<registry_id>/resume")
@blueprint.output(RegistryResponse)
def resume_registry(registry_id: str) -> Response:
    """Push to a registry again, whoever paused it or however it asked to slow down. Twice is as good as once."""
    caller().require_admin()
    with database().writing() as session:
        registry = find_registry(session, registry_id, for_update=True)
        circuit_breaker.resume(session, registry)
        audit(session, "registry.resume", registry.id)
        waiting = messages_for_registry(session, registry.id)
        shown = show_registry(registry)
    dispatch.send(waiting)
    return json_response(shown)


@blueprint.post("/registries/<registry_id>/check")
@blueprint.input(CredentialsRequest, arg_name="body")
@blueprint.output(RegistryCheckResponse)
def check_registry(registry_id: str, body: CredentialsRequest) -> Response:
    """Ask the registry what these credentials, or its own, may do. Nothing that is given is stored."""
    caller().require_admin()
    with database().writing() as session:
        registry = find_registry(session, registry_id)
        audit(session, "registry.check", registry.id)
        given = given_credentials(body, address_of(registry))
        try:
            credentials = given or credential_provider(registry).for_reading()
        except CredentialsError as error:
            raise ConflictError(error.message) from None
    address = address_of(registry)
    with client_of(registry, credentials) as client:
        checked = check(client, f"{address.path}/{CHECKED_REPOSITORY}".lstrip("/"))
    return json_response(
        RegistryCheckResponse(
            reachable=checked.reachable,
            authenticated=checked.authenticated,
            can_push=checked.can_push,
            can_pull=checked.can_pull,
            message=checked.message,
        )
    )


def _may_be_plain(body: RegistryRequest) -> bool:
    try:
        RegistryAddress.parse(body.registry_url, plain_http=True)
    except InvalidAddressError:
        return False
    return True


def _address(body: RegistryRequest) -> RegistryAddress:
    """Where a body says that the registry is; resolved and checked, so outside of any transaction."""
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
