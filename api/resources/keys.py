"""`/v1/users/OWNER/keys` and `/v1/admin/users/OWNER/keys`: the API keys of an owner."""

import re
from typing import Any

from flask import Response
from sqlalchemy import select

from api.authentication import admin_only, audit, caller, require_known_owner
from api.routing import json_response, list_of, no_content, v1_blueprint
from api.schemas.keys import KeyRequest, KeyResponse, PermissionsRequest, present_key
from shared.db.engine import database
from shared.db.models import ApiKey, KeyKind
from shared.errors import InvalidInputError, NotFoundError, PermissionDeniedError
from shared.keys import (
    OWNER_NAME,
    KeyOptions,
    carry_over_key,
    create_key,
    create_owner,
    require_room_for_key,
    revoke_key,
)

blueprint = v1_blueprint("keys")

LISTED_ALGORITHM = re.compile(r"(?:algo://)?(\*|[A-Za-z][A-Za-z0-9_]*/(?:\*|[A-Za-z][A-Za-z0-9_]*))")


@blueprint.post("/users/<username>/keys")
@blueprint.input(KeyRequest, arg_name="body")
@blueprint.output(KeyResponse)
def create_own_key(username: str, body: KeyRequest) -> Response:
    """Create a key of an owner. Only this response contains its secret."""
    if body.api_key is not None:
        raise InvalidInputError("api_key: administrators record an existing key, at POST /v1/admin/users/OWNER/keys.")
    if not caller().admin:
        caller().require_owner(username)
        if not caller().may_call:
            raise PermissionDeniedError(
                "This key may not call algorithms, so it may not create keys, which could; use another key."
            )
        if body.key_type != KeyKind.ALGORITHM.value:
            raise PermissionDeniedError("Only an admin key can create admin keys; request an AlgorithmKey.")
    return _create(username, body)


@blueprint.post("/admin/users/<username>/keys")
@blueprint.input(KeyRequest, arg_name="body")
@blueprint.output(KeyResponse)
@admin_only
def create_key_for(username: str, body: KeyRequest) -> Response:
    """Create a key of any owner, or record an existing one, and the owner with its first key (admin)."""
    return _create(username, body)


@blueprint.get("/users/<username>/keys")
@blueprint.output(list_of(KeyResponse))
def list_keys(username: str) -> Response:
    """List the keys of an owner that are not revoked, masked, newest first."""
    caller().require_owner(username)
    with database().reading() as session:
        require_known_owner(session, username)
        keys = session.scalars(
            select(ApiKey).where(ApiKey.owner == username, ApiKey.revoked_at.is_(None)).order_by(ApiKey.seq.desc())
        )
        return json_response([present_key(key) for key in keys])


@blueprint.delete("/users/<username>/keys/<key_id>")
@blueprint.output({}, status_code=204)
def delete_key(username: str, key_id: str) -> Response:
    """Revoke a key immediately."""
    caller().require_owner(username)
    with database().writing() as session:
        if not revoke_key(session, key_id, username):
            raise NotFoundError(f"{username} has no key with the id {key_id!r}, or it is already revoked.")
        audit(session, "key.revoke", key_id, owner=username)
    return no_content()


def _create(username: str, body: KeyRequest) -> Response:
    kind = KeyKind.ALGORITHM if body.key_type == KeyKind.ALGORITHM.value else KeyKind.ADMIN
    permissions = _permissions(body.permissions, kind)
    if not OWNER_NAME.fullmatch(username):
        raise InvalidInputError(
            "The name of an owner is a letter, then letters, digits or underscores, at most 30 characters."
        )
    with database().writing() as session:
        owner = create_owner(session, username)
        if not caller().admin:
            require_room_for_key(session, owner.username)
        options: KeyOptions = {"label": body.key_label, "kind": kind, "permissions": permissions}
        if body.api_key is None:
            key, secret = create_key(session, owner.username, **options)
            audit(session, "key.create", key.id, owner=owner.username, kind=kind, label=key.label or None)
            return json_response(present_key(key, secret))
        key = carry_over_key(session, owner.username, body.api_key, **options)
        audit(session, "key.carry_over", key.id, owner=owner.username, kind=kind, label=key.label or None)
        return json_response(present_key(key))


def _permissions(permissions: PermissionsRequest | None, kind: KeyKind) -> dict[str, Any] | None:
    """Return the permissions as they are stored.

    Raises:
        InvalidInputError: a permission that cannot be enforced; ignoring it would allow more than was requested.
    """
    if permissions is None:
        return None
    if permissions.referer_host:
        raise InvalidInputError("permissions.referer_host cannot be enforced here; leave it out.")
    listed = [LISTED_ALGORITHM.fullmatch(entry) for entry in permissions.algo_acl]
    if not all(listed):
        raise InvalidInputError(
            "permissions.algo_acl takes OWNER/NAME, OWNER/* or *, each with or without algo:// before it."
        )
    narrowed = not (permissions.allow_algo and permissions.allow_algo_management)
    names = [match[1] for match in listed if match]
    if kind == KeyKind.ADMIN and (narrowed or "*" not in names):
        raise InvalidInputError("permissions narrow an AlgorithmKey; a PlatformAdminKey may do everything.")
    stored = permissions.model_dump(exclude={"algo_acl", "referer_host"})
    return stored if "*" in names else {**stored, "algo_acl": names}
