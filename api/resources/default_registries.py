"""Default registries of algorithms and (for administrators) of owners: where pushes go that name no registry."""

from flask import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.authentication import audit, caller, managed_algorithm, require_known_owner, unknown_owner
from api.owner_slots import remote_slots
from api.push_check import CHECKED_NAME, check_push
from api.request_parsing import parse_push_account
from api.routing import json_response, no_content, v1_blueprint
from api.schemas.registries import DefaultRegistryRequest, DefaultRegistryResponse
from shared.algorithms import find_visible_algorithm
from shared.db.engine import database
from shared.db.models import Algorithm, DefaultLevel
from shared.encryption import keyring
from shared.errors import NotFoundError
from shared.registries.access import RegistryCheck
from shared.registries.defaults import (
    ApplicableDefault,
    applicable_default,
    defaults_with_credentials,
    remove_default,
    set_default,
)
from shared.registry.reference import normalize_name

blueprint = v1_blueprint("default_registries")
blueprint.tag = "Registries"

# Not `algorithm_route`: its paths would hide an algorithm that is called `registry`.
ALGORITHM_BY_NAME = "/algorithms/<owner:owner>/<name>/registry"
ALGORITHM_BY_ID = "/algorithms/<algorithm_id:algorithm_id>/registry"


@blueprint.get(ALGORITHM_BY_ID)
@blueprint.get(ALGORITHM_BY_NAME)
@blueprint.output(DefaultRegistryResponse)
def get_default_of_algorithm(algorithm_name: str) -> Response:
    """Return the registry for pushes of an algorithm that name none: its own default, its owner's, or everybody's."""
    with database().reading() as session:
        algorithm = find_visible_algorithm(session, caller(), algorithm_name)
        default = None
        if caller().may_read(algorithm):
            default = applicable_default(session, algorithm.owner, algorithm.id)
        return _response(default, algorithm.path)


@blueprint.put(ALGORITHM_BY_ID)
@blueprint.put(ALGORITHM_BY_NAME)
@blueprint.input(DefaultRegistryRequest, arg_name="body")
@blueprint.output(DefaultRegistryResponse)
def set_default_of_algorithm(algorithm_name: str, body: DefaultRegistryRequest) -> Response:
    """Set the registry for pushes of an algorithm that name none, and check whether it allows them."""
    credentials = parse_push_account(body)
    with remote_slots().hold(caller().owner):
        with database().writing() as session:
            algorithm = managed_algorithm(session, algorithm_name)
            session.execute(select(Algorithm.id).where(Algorithm.id == algorithm.id).with_for_update(read=True))
            algorithm = managed_algorithm(session, algorithm.id)  # it may have been deleted before it was locked
            default = set_default(
                session, keyring(), DefaultLevel.ALGORITHM, algorithm.id, body.registry_id, credentials
            )
            audit(
                session,
                "algorithm.default_registry",
                algorithm.id,
                owner=algorithm.owner,
                algorithm=algorithm.path,
                registry=default.registry.id,
                has_push_credentials=default.has_push_credentials,
            )
            defaults = defaults_with_credentials(session, default.registry.id, algorithm.owner, algorithm.id)
        repository = f"{normalize_name(algorithm.owner)}/{normalize_name(algorithm.name)}"
        check = check_push(default.registry, defaults, repository=repository)
    return _response(default, algorithm.path, check)


@blueprint.delete(ALGORITHM_BY_ID)
@blueprint.delete(ALGORITHM_BY_NAME)
@blueprint.output({}, status_code=204)
def remove_default_of_algorithm(algorithm_name: str) -> Response:
    """Remove the default of an algorithm, so that its owner's or everybody's applies. Idempotent."""
    with database().writing() as session:
        algorithm = managed_algorithm(session, algorithm_name)
        if remove_default(session, DefaultLevel.ALGORITHM, algorithm.id):
            audit(
                session,
                "algorithm.default_registry",
                algorithm.id,
                owner=algorithm.owner,
                algorithm=algorithm.path,
                removed=True,
            )
    return no_content()


@blueprint.get("/users/<username>/registry")
@blueprint.output(DefaultRegistryResponse)
def get_default_of_owner(username: str) -> Response:
    """Return the registry for pushes of an owner that name none: the owner's default, or everybody's."""
    with database().reading() as session:
        _require_visible_owner(session, username)
        return _response(applicable_default(session, username), username)


@blueprint.put("/users/<username>/registry")
@blueprint.input(DefaultRegistryRequest, arg_name="body")
@blueprint.output(DefaultRegistryResponse)
def set_default_of_owner(username: str, body: DefaultRegistryRequest) -> Response:
    """Set the registry for pushes of an owner that name none (administrators), and check whether it allows them."""
    credentials = parse_push_account(body)
    with remote_slots().hold(caller().owner):
        with database().writing() as session:
            _require_visible_owner(session, username)
            caller().require_admin()
            default = set_default(session, keyring(), DefaultLevel.OWNER, username, body.registry_id, credentials)
            audit(
                session,
                "owner.default_registry",
                username,
                owner=username,
                registry=default.registry.id,
                has_push_credentials=default.has_push_credentials,
            )
            defaults = defaults_with_credentials(session, default.registry.id, username)
        check = check_push(default.registry, defaults, repository=f"{normalize_name(username)}/{CHECKED_NAME}")
    return _response(default, username, check)


@blueprint.delete("/users/<username>/registry")
@blueprint.output({}, status_code=204)
def remove_default_of_owner(username: str) -> Response:
    """Remove the default of an owner (administrators), so that everybody's applies. Idempotent."""
    with database().writing() as session:
        _require_visible_owner(session, username)
        caller().require_admin()
        if remove_default(session, DefaultLevel.OWNER, username):
            audit(session, "owner.default_registry", username, owner=username, removed=True)
    return no_content()


def _require_visible_owner(session: Session, username: str) -> None:
    """Raise the same ApiError for an owner whose default the caller may not see as for one that is not there."""
    if not caller().owns(username):
        raise unknown_owner(username)
    require_known_owner(session, username)


def _response(default: ApplicableDefault | None, subject: str, check: RegistryCheck | None = None) -> Response:
    if default is None:
        raise NotFoundError(
            f"No default registry applies to {subject}: pushes that name no registry go nowhere. Set one with PUT, or "
            "name a registry in registry_push_credentials."
        )
    return json_response(
        DefaultRegistryResponse(
            registry_id=default.registry.id,
            source=default.source,
            has_push_credentials=default.has_push_credentials,
            can_push=None if check is None else check.can_push,
            message=None if check is None else check.message,
        )
    )
