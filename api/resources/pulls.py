"""`…/versions/HASH/pull`: where executions pull a version's image from, why, and pinning it to one registry."""

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
from shared.models import Serving, Version
from shared.pulls.pinning import pin_pull, unpin_pull
from shared.pulls.resolution import resolve_pull

blueprint = v1_blueprint("pulls")


@algorithm_route(blueprint, "/versions/<git_hash>/pull", ["GET"])
@blueprint.output(PullShown)
def show_where(algorithm: str, git_hash: str) -> Response:
    """Where executions of the version pull its image from at this moment, why, and what else was considered."""
    with database().reading() as session:
        found = find_algorithm(session, algorithm)
        caller().require_reader(found)
        version = find_version(session, found, git_hash)
        return answer(show_pull(resolve_pull(session, found, version), version, _newest_serving(session, version)))


@algorithm_route(blueprint, "/versions/<git_hash>/pull", ["PUT"])
@blueprint.input(PinBody, arg_name="body")
@blueprint.output(PullShown)
def pin(algorithm: str, git_hash: str, body: PinBody) -> Response:
    """Have executions of the version pull from one registry, whatever is pushed later. Twice is as good as once."""
    with database().writing() as session:
        found = find_algorithm(session, algorithm)
        caller().require_manager(found)
        version = find_version(session, found, git_hash)
        resolution = pin_pull(session, found, version, body.registry_id)
        audit(
            session,
            "pull.pin",
            version.id,
            owner=found.owner,
            algorithm=found.path,
            commit=version.git_hash,
            registry=body.registry_id,
        )
        shown = show_pull(resolution, version, _newest_serving(session, version))
    return answer(shown)


@algorithm_route(blueprint, "/versions/<git_hash>/pull", ["DELETE"])
@blueprint.output({}, status_code=204)
def unpin(algorithm: str, git_hash: str) -> Response:
    """Have executions of the version pull from where the latest good push went. Twice is as good as once."""
    with database().writing() as session:
        found = find_algorithm(session, algorithm)
        caller().require_manager(found)
        version = find_version(session, found, git_hash)
        unpin_pull(session, version)
        audit(session, "pull.unpin", version.id, owner=found.owner, algorithm=found.path, commit=version.git_hash)
    return nothing()


def _newest_serving(session: Session, version: Version) -> Serving | None:
    return session.scalar(select(Serving).where(Serving.version_id == version.id).order_by(Serving.seq.desc()).limit(1))
