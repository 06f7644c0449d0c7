"""Where an execution pulls a version's image from, why, and how to have it come from one registry."""

from flask import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.answers import answer, nothing
from api.auditing import audit
from api.authentication import caller
from api.routing import algorithm_route, v1_blueprint
from api.schemas.pulls import PinBody, PullShown, show_pull
from shared.algorithms import find_algorithm, find_version
from shared.database import database
from shared.models import Algorithm, Serving, Version
from shared.pulls.pins import pin, unpin
from shared.pulls.resolution import resolve_pull

blueprint = v1_blueprint("pulls")


@algorithm_route(blueprint, "/versions/<git_hash>/pull", ["GET"])
@blueprint.output(PullShown)
def get_pull(algorithm: str, git_hash: str) -> Response:
    """Where executions pull the version's image from at this moment, and why from there."""
    with database().reading() as session:
        found = find_algorithm(session, algorithm)
        caller().require_reader(found)
        return answer(_shown(session, found, find_version(session, found, git_hash)))


@algorithm_route(blueprint, "/versions/<git_hash>/pull", ["PUT"])
@blueprint.input(PinBody, arg_name="body")
@blueprint.output(PullShown)
def pin_pull(algorithm: str, git_hash: str, body: PinBody) -> Response:
    """Have the version pulled from one registry, whatever is pushed to others later. New calls go by it at once."""
    with database().writing() as session:
        found = find_algorithm(session, algorithm)
        caller().require_manager(found)
        version = find_version(session, found, git_hash)
        pin(session, version, body.registry_id)
        session.flush()
        _audit(session, "pull.pin", found, version, registry_id=body.registry_id)
        return answer(_shown(session, found, version))


@algorithm_route(blueprint, "/versions/<git_hash>/pull", ["DELETE"])
@blueprint.output({}, status_code=204)
def unpin_pull(algorithm: str, git_hash: str) -> Response:
    """Have the version pulled from where its latest good push went to, also if it was not pinned."""
    with database().writing() as session:
        found = find_algorithm(session, algorithm)
        caller().require_manager(found)
        version = find_version(session, found, git_hash)
        if version.pinned_registry_id is not None:
            _audit(session, "pull.unpin", found, version, registry_id=version.pinned_registry_id)
            unpin(version)
    return nothing()


def _shown(session: Session, algorithm: Algorithm, version: Version) -> PullShown:
    newest = select(Serving).where(Serving.version_id == version.id).order_by(Serving.seq.desc()).limit(1)
    return show_pull(version, resolve_pull(session, algorithm, version), session.scalar(newest))


def _audit(session: Session, action: str, algorithm: Algorithm, version: Version, *, registry_id: str) -> None:
    audit(
        session,
        action,
        version.id,
        owner=algorithm.owner,
        algorithm=algorithm.path,
        commit=version.git_hash,
        registry_id=registry_id,
    )
