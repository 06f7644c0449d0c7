"""`/v1/users/OWNER/keys` and `/v1/admin/users/OWNER/keys`: API keys of an owner."""

import re
from typing import Any

from flask import Response
from sqlalchemy import select

from api.authentication import audit, caller
from api.error_codes import ApiError, Code
from api.responses import json_response, no_content
from api.routing import list_of, v1_blueprint
from api.schemas.keys import KeyRequest, KeyResponse, PermissionsRequest, show_key
from shared.db.engine import database
from shared.db.models import ApiKey, KeyKind, Owner
from shared.errors import InvalidInputError, NotFoundError, PermissionDeniedError
from shared.keys import OWNER_NAME, create_key, create_owner, revoke_key

blueprint = v1_blueprint("keys")

LISTED_ALGORITHM = re.compile(r"(?:algo://)?(\*|[A-Za-z][A-Za-z0-9_]*/(?:\*|[A-Za-z][A-Za-z0-9_]*))")


@blueprint.post("/users/<username>/keys")
@blueprint.input(KeyRequest, arg_name="body")
@blueprint.output(KeyResponse)
def create_own_key(username: str, body: KeyRequest) -> Response:
    """A new key of an owner; the secret is shown this once."""
    if not caller().admin:
        caller().require_owner(username)
        if not caller().may_call:
            raise PermissionDeniedError(
                "This key may not call algorithms, so it cannot make keys, which might; use another one."
            )
        if body.key_type != KeyKind.ALGORITHM.value:
            raise PermissionDeniedError("Only an admin key can make admin keys; ask for an AlgorithmKey.")
    return _make_key(username, body)


@blueprint.post("/admin/users/<username>/keys")
@blueprint.input(KeyRequest, arg_name="body")
@blueprint.output(KeyResponse)
def create_key_for(username: str, body: KeyRequest) -> Response:
    """A new key for any owner, who is made by the first one (admin)."""
    caller().require_admin()
    return _make_key(username, body)


@blueprint.get("/users/<username>/keys")
@blueprint.output(list_of(KeyResponse))
def list_keys(username: str) -> Response:
    """The keys of an owner that are not revoked, masked, newest first."""
    caller().require_owner(username)
    with database().reading() as session:
        if session.scalar(select(Owner).where(Owner.username == username)) is None:
            raise ApiError(404, Code.NO_SUCH_OWNER, f"There is no owner {username!r}.")
        keys = session.scalars(
            select(ApiKey).where(ApiKey.owner == username, ApiKey.revoked_at.is_(None)).order_by(ApiKey.seq.desc())
        )
        return json_response([show_key(key) for key in keys])


@blueprint.delete("/users/<username>/keys/<key_id>")
@blueprint.output({}, status_code=204)
def delete_key(username: str, key_id: str) -> Response:
    """Revoke a key, from this moment on."""
    caller().require_owner(username)
    with database().writing() as session:
        if not revoke_key(session, key_id, username):
            raise NotFoundError(f"{username} has no key with the id {key_id!r}, or it is revoked already.")
        audit(session, "key.revoke", key_id, owner=username)
    return no_content()


def _make_key(username: str, body: KeyRequest) -> Response:
    kind = KeyKind.ALGORITHM if body.key_type == KeyKind.ALGORITHM.value else KeyKind.ADMIN
    permissions = _enforceable(body.permissions, kind)
    if not OWNER_NAME.fullmatch(username):
        raise InvalidInputError("An owner's name is a letter, then letters, digits or underscores, at most 30.")
    with database().writing() as session:
        owner = create_owner(session, username)
        key, secret = create_key(session, owner.username, label=body.key_label, kind=kind, permissions=permissions)
        audit(session, "key.create", key.id, owner=owner.username, kind=kind, label=body.key_label or None)
        shown = show_key(key, secret)
    return json_response(shown)


def _enforceable(permissions: PermissionsRequest | None, kind: KeyKind) -> dict[str, Any] | None:
    """The permissions as they are kept; what cannot be enforced is refused, never silently broader."""
    if permissions is None:
        return None
    if permissions.referer_host:
        raise InvalidInputError("permissions.referer_host cannot be enforced here; leave it out.")
    listed = [LISTED_ALGORITHM.fullmatch(entry) for entry in permissions.algo_acl]
    if not all(listed):
        raise InvalidInputError(
            "permissions.algo_acl takes OWNER/NAME, OWNER/* or *, each with algo:// in front if you like."
        )
    narrowed = not (permissions.allow_algo and permissions.allow_algo_management)
    names = [match[1] for match in listed if match]
    if kind == KeyKind.ADMIN and (narrowed or "*" not in names):
        raise InvalidInputError("permissions narrow an AlgorithmKey; a PlatformAdminKey may do everything.")
    kept = permissions.model_dump(exclude={"algo_acl", "referer_host"})
    if "*" not in names:
        kept["algo_acl"] = names
    return kept
