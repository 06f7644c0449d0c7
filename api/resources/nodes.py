"""`/v1/nodes/refresh`: having worker nodes, or what runs on them, pull afresh (admin)."""

from typing import Any

from flask import Response, g
from sqlalchemy.orm import Session

from api.authentication import audit, caller
from api.enqueue import enqueue, name_job
from api.responses import json_response
from api.routing import v1_blueprint
from api.schemas.refreshes import OF_NODES, OF_RUNNERS, RefreshEnqueuedResponse, RefreshRequest, show_runner
from shared.algorithms import find_algorithm, find_version
from shared.commands.push import Enqueued
from shared.commands.refresh import enqueue_refresh
from shared.db.engine import database
from shared.db.models import RefreshKind
from shared.errors import InvalidInputError
from shared.refreshes import RefreshOptions, RestartKind, matching_runners
from shared.registries.rows import find_registry

blueprint = v1_blueprint("nodes")

WOULD_BE_DONE: dict[int, Any] = {
    200: {
        "description": "What a refresh of runners would do now; nothing was done.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/RefreshEnqueuedResponse"}}},
    },
}


@blueprint.post("/nodes/refresh")
@blueprint.input(RefreshRequest, arg_name="body")
@blueprint.output(RefreshEnqueuedResponse, status_code=202)
@blueprint.doc(responses=WOULD_BE_DONE)
def refresh(body: RefreshRequest) -> Response:
    """Have every worker node pull afresh, one by one, or (`runners`) what runs of a version, of a registry, or all.

    The job's `refresh` says how far it is. A dry run of nodes is a job too, since only a worker can ask the cluster.
    """
    caller().require_admin()
    _refuse_what_does_not_go_together(body)
    what = RefreshKind(body.what)
    if body.dry_run and what == RefreshKind.RUNNERS:
        with database().reading() as session:
            runners = matching_runners(session, _options(session, body))
        shown = [show_runner(instance, algorithm.path, version.git_hash) for instance, algorithm, version in runners]
        return json_response(RefreshEnqueuedResponse(what=what, dry_run=True, runners=shown))

    def order(session: Session) -> Enqueued:
        options = _options(session, body)
        ordered = enqueue_refresh(session, options, owner=caller().owner, request_id=g.request_id)
        audit(session, "nodes.refresh", ordered.job.id, **body.model_dump(exclude_defaults=True))
        return ordered

    job_id = enqueue(order)
    return name_job(json_response(RefreshEnqueuedResponse(what=what, dry_run=body.dry_run, job_id=job_id), 202), job_id)


def _refuse_what_does_not_go_together(body: RefreshRequest) -> None:
    about_nodes = RefreshKind(body.what) == RefreshKind.NODES
    wrong = [name for name in (OF_RUNNERS if about_nodes else OF_NODES) if getattr(body, name) is not None]
    if wrong:
        other = RefreshKind.RUNNERS if about_nodes else RefreshKind.NODES
        raise InvalidInputError(f"{', '.join(wrong)}: goes with what={other}; leave it out, or say so.")
    if (body.algorithm is None) != (body.git_hash is None):
        raise InvalidInputError("algorithm and git_hash go together: they name the one version that is to pull afresh.")


def _options(session: Session, body: RefreshRequest) -> RefreshOptions:
    """What was ordered, with everything that it names found.

    Raises:
        NotFoundError: no such registry, algorithm or version.
    """
    version_id = None
    if body.algorithm is not None and body.git_hash is not None:
        version_id = find_version(session, find_algorithm(session, body.algorithm), body.git_hash).id
    return RefreshOptions(
        what=RefreshKind(body.what),
        nodes=tuple(dict.fromkeys(body.nodes or ())),
        restart=None if body.restart is None else RestartKind(body.restart),
        version_id=version_id,
        registry_id=None if body.registry_id is None else find_registry(session, body.registry_id).id,
        dry_run=body.dry_run,
    )
