"""`…/versions/HASH/pull`: where executions pull a version's image from, why, and pinning it to one registry."""

from flask import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.authentication import audit, caller
from api.responses import json_response, no_content
from api.routing import algorithm_route, v1_blueprint
from api.schemas.pulls import PinRequest, PullResponse, show_pull
from shared.algorithms import find_algorithm, find_version
from shared.db.engine import database
from shared.db.models import Instance, Version
from shared.pulls.resolution import pin_pull, resolve_pull, unpin_pull

blueprint = v1_blueprint("pulls")


@algorithm_route(blueprint, "/versions/<git_hash>/pull", ["GET"])
@blueprint.output(PullResponse)
def show_where(algorithm: str, git_hash: str) -> Response:
    """Where executions of the version pull its image from at this moment, why, and what else was considered."""
    with database().reading() as session:
        found = find_algorithm(session, algorithm)
        caller().require_reader(found)
        version = find_version(session, found, git_hash)
        return json_response(
            show_pull(resolve_pull(session, found, version), version, _newest_instance(session, version))
        )


@algorithm_route(blueprint, "/versions/<git_hash>/pull", ["PUT"])
@blueprint.input(PinRequest, arg_name="body")
@blueprint.output(PullResponse)
def pin(algorithm: str, git_hash: str, body: PinRequest) -> Response:
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
        shown = show_pull(resolution, version, _newest_instance(session, version))
    return json_response(shown)


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
    return no_content()


def _newest_instance(session: Session, version: Version) -> Instance | None:
    return session.scalar(
        select(Instance).where(Instance.version_id == version.id).order_by(Instance.seq.desc()).limit(1)
    )
