"""`/v1/algorithms`: create, read, change and delete algorithms."""

import structlog
from flask import Response
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from api import dispatch
from api.algorithm_settings import merge_settings
from api.authentication import audit, caller, managed_algorithm, readable_algorithm, require_known_owner
from api.errors import ApiError, Code
from api.presenters import latest_version, present_versions
from api.proxy_headers import public_url
from api.routing import algorithm_route, json_response, list_of, no_content, v1_blueprint
from api.schemas.algorithms import (
    AlgorithmRequest,
    AlgorithmResponse,
    AlgorithmUpdate,
    OwnedAlgorithmResponse,
    present_algorithm,
)
from api.schemas.patterns import ROUTED_NAMES
from api.schemas.versions import LatestResponse
from api.source_choice import apply_source, check_source, choose_source
from shared.commands.cancel import end_all_of_algorithm
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, DefaultLevel
from shared.errors import InvalidInputError, RequestError
from shared.git import hosted
from shared.invocation.call_errors import delete_errors
from shared.registries.defaults import remove_default
from shared.registry.reference import normalize_name

log = structlog.get_logger(__name__)
blueprint = v1_blueprint("algorithms")


@blueprint.post("/algorithms/<owner:username>")
@blueprint.input(AlgorithmRequest, arg_name="body")
@blueprint.output(AlgorithmResponse, status_code=201)
def create_algorithm(username: str, body: AlgorithmRequest) -> Response:
    """Create an algorithm; Longshore hosts its repository unless `source` names one elsewhere."""
    caller().require_owner(username)
    if body.name.lower() in ROUTED_NAMES:
        raise InvalidInputError(f"name: {body.name} is reserved for paths of this API; choose another name.")
    chosen = merge_settings({}, body.settings)
    source = choose_source(body.source, body.scmsCredentials, Algorithm(owner=username, name=body.name), is_new=True)
    check_source(source, username)
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
            apply_source(algorithm, source)
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
    """Change details, settings or source of an algorithm. Omitted fields stay as they are.

    The callability is that of the version that a GET returns, and of later ones whose publish names none.
    """
    with database().reading() as session:
        present = managed_algorithm(session, algorithm_name)
    check_source(choose_source(body.source, body.scmsCredentials, present), present.owner)
    with database().writing() as session:
        algorithm = managed_algorithm(session, algorithm_name)
        if body.details is not None:
            algorithm.details = {**algorithm.details, **body.details.model_dump(exclude_none=True)}
        if body.settings is not None:
            algorithm.settings = merge_settings(algorithm.settings, body.settings)
            version = latest_version(session, algorithm)
            if body.settings.algorithm_callability is not None and version is not None and version.published:
                version.callability = body.settings.algorithm_callability
        if body.version_info is not None and body.version_info.sample_input is not None:
            algorithm.sample_input = body.version_info.sample_input
        apply_source(algorithm, choose_source(body.source, body.scmsCredentials, algorithm))
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
        delete_errors(session, algorithm.id)
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
