"""`/v1/algorithms`: create, read, change and delete algorithms."""

from typing import Any
from urllib.parse import urlsplit

import structlog
from flask import Response
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from api import dispatch
from api.authentication import audit, caller, managed_algorithm, readable_algorithm, require_known_owner
from api.errors import ApiError, Code
from api.owner_slots import remote_slots
from api.presenters import latest_version, present_versions
from api.proxy_headers import public_url
from api.routing import algorithm_route, json_response, list_of, no_content, v1_blueprint
from api.schemas.algorithms import (
    AlgorithmRequest,
    AlgorithmResponse,
    AlgorithmUpdate,
    OwnedAlgorithmResponse,
    SettingsRequest,
    SourceRequest,
    present_algorithm,
)
from api.schemas.patterns import ROUTED_NAMES
from api.schemas.versions import LatestResponse
from shared.commands.cancel import end_all_of_algorithm
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, DefaultLevel
from shared.encryption import keyring
from shared.environments import SETTINGS_FIELDS, UnknownEnvironmentError, chosen_environment
from shared.errors import ConflictError, InvalidInputError, RequestError
from shared.git import hosted
from shared.git.repository_url import MAX_URL, InvalidRepositoryUrlError
from shared.git.sources import check_new_repository, encrypt_source_credentials, parse_repository_url
from shared.registries.defaults import remove_default
from shared.registry.reference import normalize_name

log = structlog.get_logger(__name__)
blueprint = v1_blueprint("algorithms")

UNEXPECTED_CREDENTIALS = (
    "source.credentials are for a source.repository_https_url; a repository that Longshore hosts needs none."
)
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
        raise InvalidInputError(f"name: {body.name} is reserved for paths of this API; choose another name.")
    if body.source and body.source.credentials and not body.source.repository_https_url:
        raise InvalidInputError(UNEXPECTED_CREDENTIALS)
    chosen = _merge_settings({}, body.settings)
    _require_allowed_repository(body.source, username)
    try:
        with database().writing() as session:
            require_known_owner(session, username)
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
            _apply_source(algorithm, body.source)
            session.flush()
            audit(session, "algorithm.create", algorithm.id, owner=username, name=algorithm.name)
            return json_response(present_algorithm(algorithm, public_url()), 201)
    except IntegrityError:
        raise ApiError(
            409,
            Code.NAME_TAKEN,
            f"{username}/{body.name} is taken, or has the same name in image references as another algorithm; choose "
            "another name.",
        ) from None


@algorithm_route(blueprint, "", ["GET"])
@blueprint.output(LatestResponse)
def get_algorithm(algorithm_name: str) -> Response:
    """Return the newest published version, or else the newest compiled one, or else the algorithm alone."""
    with database().reading() as session:
        algorithm = readable_algorithm(session, algorithm_name)
        version = latest_version(session, algorithm)
        if version is None:
            return json_response(present_algorithm(algorithm, public_url()))
        return json_response(present_versions(session, algorithm, [version])[0])


@algorithm_route(blueprint, "", ["PUT"])
@blueprint.input(AlgorithmUpdate, arg_name="body")
@blueprint.output(AlgorithmResponse)
def update_algorithm(algorithm_name: str, body: AlgorithmUpdate) -> Response:
    """Change details, settings or source of an algorithm. Omitted fields stay as they are."""
    with database().reading() as session:
        owner = managed_algorithm(session, algorithm_name).owner
    _require_allowed_repository(body.source, owner)
    with database().writing() as session:
        algorithm = managed_algorithm(session, algorithm_name)
        if body.details is not None:
            algorithm.details = {**algorithm.details, **body.details.model_dump(exclude_none=True)}
        if body.settings is not None:
            algorithm.settings = _merge_settings(algorithm.settings, body.settings)
        if body.version_info is not None and body.version_info.sample_input is not None:
            algorithm.sample_input = body.version_info.sample_input
        _apply_source(algorithm, body.source)
        session.flush()
        session.refresh(algorithm)
        audit(session, "algorithm.update", algorithm.id, owner=algorithm.owner, given=sorted(body.model_fields_set))
        return json_response(present_algorithm(algorithm, public_url()))


@algorithm_route(blueprint, "", ["DELETE"])
@blueprint.output({}, status_code=204)
def delete_algorithm(algorithm_name: str) -> Response:
    """Delete an algorithm and its repository, end its jobs and free its name. Images in registries stay there."""
    with database().writing() as session:
        algorithm = managed_algorithm(session, algorithm_name)
        algorithm.deleted_at = session.scalar(select(now_ms()))
        algorithm.source_credentials = algorithm.webhook_secret = None
        remove_default(session, DefaultLevel.ALGORITHM, algorithm.id)
        messages = end_all_of_algorithm(session, algorithm.id)
        audit(session, "algorithm.delete", algorithm.id, owner=algorithm.owner, name=algorithm.name)
    dispatch.send(messages)
    if algorithm.hosted:
        try:
            hosted.delete(algorithm.id)
        except RequestError as error:
            # It is unreachable for callers already; the git service removes it at its next start.
            log.warning("repository_not_removed", algorithm_id=algorithm.id, reason=error.message)
    return no_content()


@blueprint.get("/users/<username>/algorithms")
@blueprint.output(list_of(OwnedAlgorithmResponse))
def list_algorithms(username: str) -> Response:
    """List the algorithms of an owner, newest first."""
    if not caller().owns(username):
        caller().require_owner(username)
    with database().reading() as session:
        require_known_owner(session, username)
        rows = session.scalars(
            select(Algorithm)
            .where(Algorithm.owner == username, Algorithm.deleted_at.is_(None))
            .order_by(Algorithm.seq.desc())
        )
        return json_response(
            [
                OwnedAlgorithmResponse(id=row.id, algoname=row.name, username=row.owner)
                for row in rows
                if caller().may_read(row)
            ]
        )


def _merge_settings(present: dict[str, Any], change: SettingsRequest) -> dict[str, Any]:
    """Return the settings after a change. An empty text removes an environment, which has three field names.

    Raises:
        ApiError: the environment is not configured.
    """
    changed = change.model_dump(exclude_none=True)
    try:
        for field in SETTINGS_FIELDS:
            chosen_environment({field: changed.get(field)})
    except UnknownEnvironmentError as error:
        raise ApiError(400, Code.UNKNOWN_LANGUAGE, error.message) from None
    merged = {**present, **changed}
    return {**DEFAULT_SETTINGS, **{field: value for field, value in merged.items() if value != ""}}


def _require_allowed_repository(source: SourceRequest | None, owner: str) -> None:
    """Check the address of a repository; it is resolved, so this is done outside of a transaction.

    Raises:
        InvalidInputError: the URL is invalid, its address is forbidden, or the ssh key is not for it.
    """
    if source is None or not source.repository_https_url:
        return
    try:
        url = parse_repository_url(source.repository_https_url)
        # A name server can be slow; beyond a few at a time, names are checked at their use only.
        resolves = remote_slots().acquire(caller().owner)
        try:
            check_new_repository(url, owner, resolves=resolves)
        finally:
            if resolves:
                remote_slots().release(caller().owner)
    except InvalidRepositoryUrlError as error:
        raise InvalidInputError(f"source.repository_https_url: {error}") from None
    except InvalidInputError as error:
        raise InvalidInputError(f"source.repository_https_url: {error.message}") from None


def _apply_source(algorithm: Algorithm, source: SourceRequest | None) -> None:
    """Change the repository of an algorithm. Credentials for another host are removed.

    Raises:
        InvalidInputError: the URL is invalid.
        ConflictError: credentials for a repository that Longshore hosts.
    """
    if source is None:
        return
    if source.repository_https_url:
        try:
            url = parse_repository_url(source.repository_https_url)
        except ValueError as error:
            raise InvalidInputError(f"source.repository_https_url: {error}") from None
        if algorithm.repository_url and _host(algorithm.repository_url) != _host(str(url)):
            algorithm.source_credentials = None
        if algorithm.repository_url != str(url):
            algorithm.webhook_secret = None  # the other repository's administrators may know it
        algorithm.repository_url = str(url)
        if len(algorithm.repository_url) > MAX_URL:  # git's short form is longer as a URL
            raise InvalidInputError(
                f"source.repository_https_url: it has at most {MAX_URL} characters as {url.scheme}://…."
            )
    if source.credentials is not None:
        if algorithm.repository_url is None:
            raise ConflictError(UNEXPECTED_CREDENTIALS)
        algorithm.source_credentials = encrypt_source_credentials(
            keyring(), algorithm, source.credentials.username, source.credentials.password
        )


def _host(url: str) -> tuple[str, str]:
    return urlsplit(url)[:2]
