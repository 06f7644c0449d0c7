"""Where instances of a version pull its image from, and the registry that it is pinned to."""

from flask import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from api.authentication import about, audit, managed_version, readable_version
from api.routing import algorithm_route, json_response, no_content, v1_blueprint
from api.schemas.pushes import PinRequest, PullResponse, present_pull
from shared.db.engine import database
from shared.db.models import Instance, Version
from shared.pulls.resolution import Resolution, pin_pull, resolve_pull, unpin_pull

blueprint = v1_blueprint("pulls")
blueprint.tag = "Versions"


@algorithm_route(blueprint, "/versions/<git_hash>/pull", ["GET"])
@blueprint.output(PullResponse)
def get_pull(algorithm_name: str, git_hash: str) -> Response:
    """Return where instances of the version pull its image from now, why, and the other candidates."""
    with database().reading() as session:
        algorithm, version = readable_version(session, algorithm_name, git_hash)
        return _response(session, version, resolve_pull(session, algorithm, version))


@algorithm_route(blueprint, "/versions/<git_hash>/pull", ["PUT"])
@blueprint.input(PinRequest, arg_name="body")
@blueprint.output(PullResponse)
def pin(algorithm_name: str, git_hash: str, body: PinRequest) -> Response:
    """Make instances of the version pull from one registry, whatever is pushed later. Idempotent."""
    with database().writing() as session:
        algorithm, version = managed_version(session, algorithm_name, git_hash)
        resolution = pin_pull(session, algorithm, version, body.registry_id)
        audit(session, "pull.pin", version.id, **about(algorithm, version), registry=body.registry_id)
        return _response(session, version, resolution)


@algorithm_route(blueprint, "/versions/<git_hash>/pull", ["DELETE"])
@blueprint.output({}, status_code=204)
def unpin(algorithm_name: str, git_hash: str) -> Response:
    """Make instances of the version pull from the registry of the latest good push. Idempotent."""
    with database().writing() as session:
        algorithm, version = managed_version(session, algorithm_name, git_hash)
        unpin_pull(session, version)
        audit(session, "pull.unpin", version.id, **about(algorithm, version))
    return no_content()


def _response(session: Session, version: Version, resolution: Resolution) -> Response:
    newest = session.scalar(
        select(Instance).where(Instance.version_id == version.id).order_by(Instance.seq.desc()).limit(1)
    )
    return json_response(present_pull(resolution, version, newest))
