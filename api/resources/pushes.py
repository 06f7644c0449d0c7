"""Pushing a version again, the status of its pushes, and every push for dashboards."""

from flask import Response, g
from sqlalchemy import select
from sqlalchemy.orm import Session

from api import dispatch
from api.authentication import audit, caller
from api.credentials import push_request
from api.enqueue import enqueue, name_job
from api.pagination import PageQuery, page_of, paged
from api.presenters import shown_pushes
from api.responses import json_response, no_content
from api.routing import algorithm_route, list_of, v1_blueprint
from api.schemas.base import ResponseModel, Text
from api.schemas.pushes import ListedPushResponse, PushResponse, RepushRequest, show_push
from shared.algorithms import (
    HASH_HAS_PREFIX,
    find_algorithm,
    find_version,
    hash_range,
    image_build,
    readable_algorithms,
)
from shared.commands.cancel import cancel_job
from shared.commands.push import Enqueued, enqueue_push
from shared.db.engine import database
from shared.db.models import Algorithm, ImagePush, Job, PushState, Version
from shared.errors import ConflictError, InvalidInputError, NotFoundError, RequestError
from shared.git import hosted
from shared.pushes.queries import pushes_of_version

blueprint = v1_blueprint("pushes")


class PushesQuery(PageQuery):
    """Which pushes to list."""

    status: PushState | None = None
    registry: Text | None = None
    missing: bool | None = None


class PushesPage(ResponseModel):
    """A page of pushes."""

    marker: str | None
    next_link: str | None
    results: list[ListedPushResponse]


@algorithm_route(blueprint, "/versions/<git_hash>/registry", ["POST"])
@blueprint.input(RepushRequest, arg_name="body")
@blueprint.output({}, status_code=204)
def push_again(algorithm: str, git_hash: str, body: RepushRequest) -> Response:
    """Push the image of a version to a registry (again), with credentials for this push or the registry's own."""

    def order(session: Session) -> Enqueued:
        with database().before(session) as before:
            found = find_algorithm(before, algorithm)
            caller().require_manager(found)
            version = find_version(before, found, git_hash)
            build = image_build(before, version)
            if build is None:
                raise InvalidInputError(f"{version.git_hash[:12]} has no succeeded build; compile it first.")
            push = push_request(before, body.registry_push_credentials)
        ordered = enqueue_push(session, found, version, build, push, request_id=g.request_id)
        audit(
            session,
            "push",
            ordered.job.id,
            owner=found.owner,
            algorithm=found.path,
            commit=version.git_hash,
            to=[push.registry_id],
            own_credentials=push.credentials is not None,
        )
        return ordered

    try:
        return name_job(no_content(), enqueue(order))
    except NotFoundError:
        if _is_only_committed(algorithm, git_hash):
            raise InvalidInputError(f"{git_hash[:12]} was never compiled; compile it first.") from None
        raise


@algorithm_route(blueprint, "/versions/<git_hash>/registry", ["GET"])
@blueprint.output(list_of(PushResponse))
def list_version_pushes(algorithm: str, git_hash: str) -> Response:
    """The status of the latest push to each registry that the version was ever pushed to."""
    known = pushes_of_version(database(), algorithm, git_hash)
    may_read = bool(known) and caller().reads(known[0].owner, known[0].name)
    if may_read and all(push.state != PushState.QUEUED for push in known):
        return json_response([show_push(push) for push in known])
    # What waits says why, and what is not found or not allowed is refused with the reason.
    with database().reading() as session:
        found = find_algorithm(session, algorithm)
        caller().require_reader(found)
        version = find_version(session, found, git_hash)
        rows = session.scalars(select(ImagePush).where(ImagePush.version_id == version.id).order_by(ImagePush.seq))
        return json_response(shown_pushes(session, rows.all()))


@algorithm_route(blueprint, "/versions/<git_hash>/registry/<registry_id>", ["DELETE"])
@blueprint.output({}, status_code=204)
def cancel_push(algorithm: str, git_hash: str, registry_id: str) -> Response:
    """Cancel a push that has not ended."""
    with database().writing() as session:
        found = find_algorithm(session, algorithm)
        caller().require_manager(found)
        version = find_version(session, found, git_hash)
        push = session.scalar(
            select(ImagePush).where(ImagePush.version_id == version.id, ImagePush.registry_id == registry_id)
        )
        if push is None:
            raise NotFoundError(f"{version.git_hash[:12]} was never pushed to a registry with the id {registry_id!r}.")
        job = session.scalar(select(Job).where(Job.id == push.job_id))
        if job is None:
            raise ConflictError("The push has ended; there is nothing to cancel.")
        freed = cancel_job(session, job)
        audit(session, "push.cancel", job.id, owner=found.owner, algorithm=found.path, commit=version.git_hash)
    dispatch.send(freed)
    return no_content()


def _is_only_committed(algorithm: str, git_hash: str) -> bool:
    """Whether a hash names no version, but a commit that could be made one."""
    with database().reading() as session:
        found = find_algorithm(session, algorithm)
        known = session.scalar(
            select(Version.id).where(Version.algorithm_id == found.id, HASH_HAS_PREFIX).limit(1),
            hash_range(git_hash.lower()),
        )
    if known is not None or not found.hosted:
        return False
    try:
        hosted.resolve(found.id, git_hash.lower())
    except RequestError:
        return False
    return True


@blueprint.get("/pushes")
@blueprint.input(PushesQuery, location="query", arg_name="query")
@blueprint.output(PushesPage)
def list_pushes(query: PushesQuery) -> Response:
    """The latest push of every version and registry that the caller may read, newest first."""
    with database().reading() as session:
        rows = (
            select(ImagePush, Version, Algorithm)
            .join(Version, Version.id == ImagePush.version_id)
            .join(Algorithm, Algorithm.id == Version.algorithm_id)
        )
        if query.status is not None:
            rows = rows.where(ImagePush.state == query.status)
        if query.registry is not None:
            rows = rows.where(ImagePush.registry_id == query.registry)
        if query.missing is not None:
            rows = rows.where(ImagePush.missing_at.is_not(None) if query.missing else ImagePush.missing_at.is_(None))
        readable = readable_algorithms(caller())
        if readable is not None:
            rows = rows.where(Algorithm.id.in_(readable))
        page, marker = page_of(session, rows, ImagePush.seq, query)
        shown = shown_pushes(session, [push for push, _, _ in page])
        listed = [
            ListedPushResponse(
                **dict(push),
                algorithm=algorithm.path,
                algorithm_id=algorithm.id,
                git_hash=version.git_hash,
            )
            for push, (_, version, algorithm) in zip(shown, page, strict=True)
        ]
        return json_response(paged(listed, marker))
