"""Push a version again, read and cancel its pushes, and list all pushes."""

from flask import Response, g
from sqlalchemy import select
from sqlalchemy.orm import Session

from api import dispatch
from api.authentication import about, audit, caller, managed_algorithm, managed_version, readable_version
from api.enqueue import add_job_headers, enqueue
from api.pagination import Page, PageQuery, fetch_page, filters, page_body
from api.presenters import present_pushes
from api.request_parsing import push_request
from api.routing import algorithm_route, json_response, list_of, no_content, v1_blueprint
from api.schemas.base import Text
from api.schemas.pushes import (
    ListedPushResponse,
    PushResponse,
    RepushRequest,
    present_push,
)
from shared.algorithms import (
    HASH_HAS_PREFIX,
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
    """The pushes to list."""

    status: PushState | None = None
    registry: Text | None = None
    missing: bool | None = None


@algorithm_route(blueprint, "/versions/<git_hash>/registry", ["POST"])
@blueprint.input(RepushRequest, arg_name="body")
@blueprint.output({}, status_code=204)
def repush(algorithm_name: str, git_hash: str, body: RepushRequest) -> Response:
    """Push the image of a version to a registry, with credentials for this push or the registry's own."""

    def command(session: Session) -> Enqueued:
        with database().before(session) as before:
            algorithm, version = managed_version(before, algorithm_name, git_hash)
            build = image_build(before, version)
            if build is None:
                raise InvalidInputError(f"{version.git_hash[:12]} has no succeeded build; compile it first.")
            push = push_request(before, body.registry_push_credentials)
        enqueued = enqueue_push(session, algorithm, version, build, push, request_id=g.request_id)
        audit(
            session,
            "push",
            enqueued.job.id,
            **about(algorithm, version),
            to=[push.registry_id],
            own_credentials=push.credentials is not None,
        )
        return enqueued

    try:
        return add_job_headers(no_content(), enqueue(command))
    except NotFoundError:
        if _is_only_committed(algorithm_name, git_hash):
            raise InvalidInputError(f"{git_hash[:12]} was never compiled; compile it first.") from None
        raise


@algorithm_route(blueprint, "/versions/<git_hash>/registry", ["GET"])
@blueprint.output(list_of(PushResponse))
def list_version_pushes(algorithm_name: str, git_hash: str) -> Response:
    """Return the latest push of the version to each registry."""
    pushes = pushes_of_version(database(), algorithm_name, git_hash)
    if (
        pushes
        and caller().reads(pushes[0].owner, pushes[0].name)
        and all(push.state != PushState.QUEUED for push in pushes)
    ):
        return json_response([present_push(push) for push in pushes])
    # More queries: for the reasons of queued pushes, or for the error if there are no readable ones.
    with database().reading() as session:
        _, version = readable_version(session, algorithm_name, git_hash)
        rows = session.scalars(select(ImagePush).where(ImagePush.version_id == version.id).order_by(ImagePush.seq))
        return json_response(present_pushes(session, rows.all()))


@algorithm_route(blueprint, "/versions/<git_hash>/registry/<registry_id>", ["DELETE"])
@blueprint.output({}, status_code=204)
def cancel_push(algorithm_name: str, git_hash: str, registry_id: str) -> Response:
    """Cancel a push that has not ended."""
    with database().writing() as session:
        algorithm, version = managed_version(session, algorithm_name, git_hash)
        push = session.scalar(
            select(ImagePush).where(ImagePush.version_id == version.id, ImagePush.registry_id == registry_id)
        )
        if push is None:
            raise NotFoundError(f"{version.git_hash[:12]} was never pushed to a registry with the id {registry_id!r}.")
        job = session.scalar(select(Job).where(Job.id == push.job_id))
        if job is None:
            raise ConflictError("The push has ended; there is nothing to cancel.")
        messages = cancel_job(session, job)
        audit(session, "push.cancel", job.id, **about(algorithm, version))
    dispatch.send(messages)
    return no_content()


def _is_only_committed(algorithm_name: str, git_hash: str) -> bool:
    """Return whether a hash names no version, but a commit that can be compiled."""
    with database().reading() as session:
        algorithm = managed_algorithm(session, algorithm_name)
        version_id = session.scalar(
            select(Version.id).where(Version.algorithm_id == algorithm.id, HASH_HAS_PREFIX).limit(1),
            hash_range(git_hash.lower()),
        )
    if version_id is not None or not algorithm.hosted:
        return False
    try:
        hosted.resolve(algorithm.id, git_hash.lower())
    except RequestError:
        return False
    return True


@blueprint.get("/pushes")
@blueprint.input(PushesQuery, location="query", arg_name="query")
@blueprint.output(Page[ListedPushResponse])
def list_pushes(query: PushesQuery) -> Response:
    """List the latest push of every version and registry that the caller may read, newest first."""
    with database().reading() as session:
        rows = (
            select(ImagePush, Version, Algorithm)
            .join(Version, Version.id == ImagePush.version_id)
            .join(Algorithm, Algorithm.id == Version.algorithm_id)
            .where(*filters((ImagePush.state, query.status), (ImagePush.registry_id, query.registry)))
        )
        if query.missing is not None:
            rows = rows.where(ImagePush.missing_at.is_not(None) if query.missing else ImagePush.missing_at.is_(None))
        readable = readable_algorithms(caller())
        if readable is not None:
            rows = rows.where(Algorithm.id.in_(readable))
        page, marker = fetch_page(session, rows, ImagePush.seq, query)
        pushes = present_pushes(session, [push for push, _, _ in page])
        return json_response(
            page_body(
                [
                    ListedPushResponse(
                        **dict(push), algorithm=algorithm.path, algorithm_id=algorithm.id, git_hash=version.git_hash
                    )
                    for push, (_, version, algorithm) in zip(pushes, page, strict=True)
                ],
                marker,
            )
        )
