"""`/v1/nodes/refresh`: make nodes, or the instances on them, pull their images again (admin)."""

from typing import Any

from flask import Response, g
from sqlalchemy.orm import Session

from api.authentication import admin_only, audit, caller
from api.enqueue import add_job_headers, enqueue
from api.routing import json_response, v1_blueprint
from api.schemas.refreshes import OF_NODES, OF_RUNNERS, RefreshEnqueuedResponse, RefreshRequest, RestartedRunnerResponse
from shared.algorithms import find_algorithm, find_version
from shared.commands.push import Enqueued
from shared.commands.refresh import enqueue_refresh
from shared.db.engine import database
from shared.db.models import RefreshKind
from shared.errors import InvalidInputError
from shared.refreshes import RefreshOptions, RestartKind, matching_runners
from shared.registries.rows import find_registry

blueprint = v1_blueprint("nodes")

DRY_RUN_RESPONSE: dict[int, Any] = {
    200: {
        "description": "The instances that a refresh of runners would restart now; nothing was restarted.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/RefreshEnqueuedResponse"}}},
    },
}


@blueprint.post("/nodes/refresh")
@blueprint.input(RefreshRequest, arg_name="body")
@blueprint.output(RefreshEnqueuedResponse, status_code=202)
@blueprint.doc(responses=DRY_RUN_RESPONSE)
@admin_only
def refresh(body: RefreshRequest) -> Response:
    """Make nodes pull their images again, one by one, or (`runners`) instances of a version, of a registry, or all.

    The job's `refresh` has the progress. A dry run of nodes is a job too, because only a worker can query the cluster.
    """
    _check_combination(body)
    what = RefreshKind(body.what)
    if body.dry_run and what == RefreshKind.RUNNERS:
        with database().reading() as session:
            runners = matching_runners(session, _options(session, body))
        return json_response(
            RefreshEnqueuedResponse(
                what=what,
                dry_run=True,
                runners=[
                    RestartedRunnerResponse(
                        algorithm=algorithm.path,
                        git_hash=version.git_hash,
                        image=instance.image,
                        registry_id=instance.registry_id,
                    )
                    for instance, algorithm, version in runners
                ],
            )
        )

    def command(session: Session) -> Enqueued:
        enqueued = enqueue_refresh(session, _options(session, body), owner=caller().owner, request_id=g.request_id)
        audit(session, "nodes.refresh", enqueued.job.id, **body.model_dump(exclude_defaults=True))
        return enqueued

    job_id = enqueue(command)
    return add_job_headers(
        json_response(RefreshEnqueuedResponse(what=what, dry_run=body.dry_run, job_id=job_id), 202), job_id
    )


def _check_combination(body: RefreshRequest) -> None:
    is_of_nodes = RefreshKind(body.what) == RefreshKind.NODES
    wrong = [name for name in (OF_RUNNERS if is_of_nodes else OF_NODES) if getattr(body, name) is not None]
    if wrong:
        other = RefreshKind.RUNNERS if is_of_nodes else RefreshKind.NODES
        raise InvalidInputError(f"{', '.join(wrong)}: only with what={other}; omit it, or send what={other}.")
    if (body.algorithm is None) != (body.git_hash is None):
        raise InvalidInputError("algorithm and git_hash are given together: they name the one version to refresh.")


def _options(session: Session, body: RefreshRequest) -> RefreshOptions:
    """Return the options of the refresh, with the ids of everything that the request names.

    Raises:
        NotFoundError: no such registry, algorithm or version.
    """
    return RefreshOptions(
        what=RefreshKind(body.what),
        nodes=tuple(dict.fromkeys(body.nodes or ())),
        restart=None if body.restart is None else RestartKind(body.restart),
        version_id=None
        if body.algorithm is None or body.git_hash is None
        else find_version(session, find_algorithm(session, body.algorithm), body.git_hash).id,
        registry_id=None if body.registry_id is None else find_registry(session, body.registry_id).id,
        dry_run=body.dry_run,
    )
