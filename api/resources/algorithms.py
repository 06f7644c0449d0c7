"""`/v1/algorithms`: creating, reading, changing and deleting algorithms."""

from typing import Any
from urllib.parse import urlsplit

import structlog
from flask import Response
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from api import dispatch
from api.authentication import audit, caller
from api.error_codes import ApiError, Code
from api.presenters import latest_version, shown_versions
from api.proxy_headers import public_url
from api.responses import json_response, no_content
from api.routing import algorithm_route, list_of, v1_blueprint
from api.schemas.algorithms import (
    AlgorithmRequest,
    AlgorithmResponse,
    AlgorithmUpdate,
    OwnedAlgorithmResponse,
    SettingsRequest,
    SourceRequest,
    show_algorithm,
)
from api.schemas.patterns import ROUTED_NAMES
from api.schemas.versions import LatestResponse
from shared.algorithms import find_algorithm
from shared.commands.cancel import end_all_of_algorithm
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, Owner
from shared.encryption import keyring
from shared.errors import ConflictError, InvalidInputError, RequestError
from shared.git import hosted
from shared.git.repository_url import MAX_URL, InvalidRepositoryUrlError
from shared.git.sources import read_repository_url, refuse_forbidden_repository, seal_source
from shared.net.address_rules import ForbiddenAddressError
from shared.registry.reference import normalize_name
from shared.settings import settings

log = structlog.get_logger(__name__)
blueprint = v1_blueprint("algorithms")

CREDENTIALS_FOR_NOTHING = "source.credentials belong to a source.repository_https_url; Longshore's own needs none."
DEFAULT_SETTINGS: dict[str, Any] = {
    "algorithm_callability": "private",
    "source_visibility": "closed",
    "language": "python3",
    "environment": "cpu",
    "license": "apl",
    "network_access": "full",
    "pipeline_enabled": True,
    "royalty_microcredits": 0,
}


@blueprint.post("/algorithms/<owner:username>")
@blueprint.input(AlgorithmRequest, arg_name="body")
@blueprint.output(AlgorithmResponse, status_code=201)
def create_algorithm(username: str, body: AlgorithmRequest) -> Response:
    """Create an algorithm; Longshore hosts its repository unless `source` names one elsewhere."""
    caller().require_owner(username)
    if body.name.lower() in ROUTED_NAMES:
        raise InvalidInputError(f"name: {body.name} is a word of this interface's addresses; choose another.")
    if body.source and body.source.credentials and not body.source.repository_https_url:
        raise InvalidInputError(CREDENTIALS_FOR_NOTHING)
    chosen = _settings({}, body.settings)
    _refuse_forbidden(body.source)
    try:
        with database().writing() as session:
            if session.scalar(select(Owner).where(Owner.username == username)) is None:
                raise ApiError(
                    404,
                    Code.NO_SUCH_OWNER,
                    f"There is no owner {username!r}; an administrator makes it with its first key.",
                )
            algorithm = Algorithm(
                owner=username,
                name=body.name,
                image_path=f"{normalize_name(username)}/{normalize_name(body.name)}",
                details=body.details.model_dump(exclude_none=True),
                settings=chosen,
                sample_input=body.version_info.sample_input if body.version_info else None,
            )
            session.add(algorithm)
            session.flush()
            _take_source(algorithm, body.source)
            session.flush()
            audit(session, "algorithm.create", algorithm.id, owner=username, name=algorithm.name)
            shown = show_algorithm(algorithm, public_url())
    except IntegrityError:
        raise _name_taken(username, body.name) from None
    return json_response(shown, 201)


@algorithm_route(blueprint, "", ["GET"])
@blueprint.output(LatestResponse)
def get_algorithm(algorithm: str) -> Response:
    """The latest version: the newest published one, else the newest compiled one, else the algorithm alone."""
    with database().reading() as session:
        found = find_algorithm(session, algorithm)
        caller().require_reader(found)
        version = latest_version(session, found)
        if version is None:
            return json_response(show_algorithm(found, public_url()))
        return json_response(shown_versions(session, found, [version])[0])


@algorithm_route(blueprint, "", ["PUT"])
@blueprint.input(AlgorithmUpdate, arg_name="body")
@blueprint.output(AlgorithmResponse)
def update_algorithm(algorithm: str, body: AlgorithmUpdate) -> Response:
    """Change details, settings or source of an algorithm; what is left out stays."""
    with database().reading() as session:
        caller().require_manager(find_algorithm(session, algorithm))
    _refuse_forbidden(body.source)
    with database().writing() as session:
        found = find_algorithm(session, algorithm)
        caller().require_manager(found)
        if body.details is not None:
            found.details = {**found.details, **body.details.model_dump(exclude_none=True)}
        if body.settings is not None:
            found.settings = _settings(found.settings, body.settings)
        if body.version_info is not None and body.version_info.sample_input is not None:
            found.sample_input = body.version_info.sample_input
        _take_source(found, body.source)
        session.flush()
        session.refresh(found)
        audit(session, "algorithm.update", found.id, owner=found.owner, given=sorted(body.model_fields_set))
        shown = show_algorithm(found, public_url())
    return json_response(shown)


@algorithm_route(blueprint, "", ["DELETE"])
@blueprint.output({}, status_code=204)
def delete_algorithm(algorithm: str) -> Response:
    """Delete an algorithm: its jobs end, its name is free, its repository goes. Images in registries stay there."""
    with database().writing() as session:
        found = find_algorithm(session, algorithm)
        caller().require_manager(found)
        found.deleted_at = session.scalar(select(now_ms()))
        found.source_credentials = None
        freed = end_all_of_algorithm(session, found.id)
        audit(session, "algorithm.delete", found.id, owner=found.owner, name=found.name)
    dispatch.send(freed)
    if found.hosted:
        _remove_repository(found)
    return no_content()


@blueprint.get("/users/<username>/algorithms")
@blueprint.output(list_of(OwnedAlgorithmResponse))
def list_algorithms(username: str) -> Response:
    """The algorithms of an owner, newest first."""
    if not caller().owns(username):
        caller().require_owner(username)
    with database().reading() as session:
        if session.scalar(select(Owner).where(Owner.username == username)) is None:
            raise ApiError(404, Code.NO_SUCH_OWNER, f"There is no owner {username!r}.")
        rows = session.scalars(
            select(Algorithm)
            .where(Algorithm.owner == username, Algorithm.deleted_at.is_(None))
            .order_by(Algorithm.seq.desc())
        )
        readable = [row for row in rows if caller().may_read(row)]
        return json_response(
            [OwnedAlgorithmResponse(id=row.id, algoname=row.name, username=row.owner) for row in readable]
        )


def _remove_repository(algorithm: Algorithm) -> None:
    try:
        hosted.delete(algorithm.id)
    except RequestError as refusal:
        # Nobody can reach it by now; the git service removes it at its next start.
        log.warning("repository not removed yet", algorithm_id=algorithm.id, reason=refusal.message)


def _settings(present: dict[str, Any], change: SettingsRequest) -> dict[str, Any]:
    """The settings after a change, with the environment checked by whichever of its three names was given."""
    given = change.model_dump(exclude_none=True)
    known = settings().base_images
    for field in ("algorithm_environment", "package_set", "language"):
        if field in given and given[field] not in known:
            raise ApiError(
                400,
                Code.UNKNOWN_LANGUAGE,
                f"settings.{field}: {given[field]!r} is not configured here; there are {', '.join(sorted(known))}.",
            )
    return {**DEFAULT_SETTINGS, **present, **given}


def _refuse_forbidden(source: SourceRequest | None) -> None:
    """Refuse a repository at an address that is not spoken to, before a transaction begins."""
    if source is None or not source.repository_https_url:
        return
    try:
        refuse_forbidden_repository(read_repository_url(source.repository_https_url))
    except (InvalidRepositoryUrlError, ForbiddenAddressError) as error:
        raise InvalidInputError(f"source.repository_https_url: {error}") from None


def _take_source(algorithm: Algorithm, source: SourceRequest | None) -> None:
    """Take what a body says of the repository. Its credentials go nowhere else than where they were given for."""
    if source is None:
        return
    if source.repository_https_url:
        try:
            url = read_repository_url(source.repository_https_url)
        except ValueError as error:
            raise InvalidInputError(f"source.repository_https_url: {error}") from None
        if algorithm.repository_url and _host(algorithm.repository_url) != _host(str(url)):
            algorithm.source_credentials = None
        algorithm.repository_url = str(url)
        if len(algorithm.repository_url) > MAX_URL:  # git's short form grows when it is written out
            raise InvalidInputError(
                f"source.repository_https_url: it has at most {MAX_URL} characters as {url.scheme}://…."
            )
    if source.credentials is not None:
        if algorithm.repository_url is None:
            raise ConflictError(CREDENTIALS_FOR_NOTHING)
        algorithm.source_credentials = seal_source(
            keyring(), algorithm, source.credentials.username, source.credentials.password
        )


def _host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _name_taken(owner: str, name: str) -> RequestError:
    return ApiError(
        409,
        Code.NAME_TAKEN,
        f"{owner}/{name} is taken, or an algorithm whose name is the same in image references; choose another name.",
    )
