"""Compiling, publishing and reading the versions of an algorithm."""

from collections.abc import Sequence

from flask import Response, g
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from api.authentication import audit, caller
from api.credentials import push_request
from api.enqueue import enqueue, name_job, repeated_job
from api.pagination import PageQuery, page_of, paged
from api.presenters import shown_enqueued, shown_versions
from api.responses import json_response
from api.routing import algorithm_route, v1_blueprint
from api.schemas.base import Query, ResponseModel
from api.schemas.pushes import PushCredentialsRequest
from api.schemas.versions import CompileRequest, PublishRequest, PublishVersionRequest, VersionResponse
from shared.algorithms import find_algorithm, find_version
from shared.commands.compile import enqueue_compile
from shared.commands.publish import PublishOptions, enqueue_publish
from shared.commands.push import Enqueued, PushRequest
from shared.db.engine import database
from shared.db.models import Algorithm, Build, BuildStatus, Job, Version
from shared.db.models.algorithms import PublishState
from shared.errors import InvalidInputError, RequestError
from shared.git.sources import resolve_commit

blueprint = v1_blueprint("versions")


class CompileQuery(Query):
    """How to compile."""

    force: bool = False
    refresh: bool = False
    """Resolve the requirements anew and build again, instead of using the environment that is there."""


class VersionsQuery(PageQuery):
    """Which versions to list."""

    published: bool | None = None
    callable: bool | None = None


class VersionsPage(ResponseModel):
    """A page of versions."""

    marker: str | None
    next_link: str | None
    results: list[VersionResponse]


@algorithm_route(blueprint, "/compile", ["POST"])
@blueprint.input(CompileQuery, location="query", arg_name="query")
@blueprint.input(CompileRequest, arg_name="body")
@blueprint.output(VersionResponse)
def compile_algorithm(algorithm: str, query: CompileQuery, body: CompileRequest) -> Response:
    """Build a commit's image, and push it when it is built."""
    pushes: list[PushRequest] = []
    job_id = repeated_job()
    with database().reading() as session:
        found = find_algorithm(session, algorithm)
        caller().require_manager(found)
        if job_id is None:  # a repeat gets its job, whatever became of the registry since
            pushes = _push_requests(session, body.registry_push_credentials)
    # Asking the repository takes up to ten seconds: no transaction is open meanwhile (rule 6).
    commit = "" if job_id else resolve_commit(found, body.commitSha)

    def order(session: Session) -> Enqueued:
        present = find_algorithm(session, found.id)
        ordered = enqueue_compile(
            session,
            present,
            commit,
            pushes=pushes,
            force=query.force,
            refresh=query.refresh,
            request_id=g.request_id,
        )
        _audit(session, "compile", present, ordered, pushes)
        return ordered

    return _answer_with_version(enqueue(order))


@algorithm_route(blueprint, "/version", ["POST"])
@algorithm_route(blueprint, "/versions", ["POST"])
@blueprint.input(PublishRequest, arg_name="body")
@blueprint.output(VersionResponse)
def publish_version(algorithm: str, body: PublishRequest) -> Response:
    """Give the newest build's commit a semantic version and make it callable, and push its image."""

    def order(session: Session) -> Enqueued:
        found = find_algorithm(session, algorithm)
        caller().require_manager(found)
        pushes = _push_requests(session, body.registry_push_credentials)
        if body.details is not None:
            found.details = {**found.details, **body.details.model_dump(exclude_none=True)}
        version = _pinned(session, found, body.commitSha) if body.commitSha else None
        order = _publish_options(body, version)
        ordered = enqueue_publish(session, found, order, pushes=pushes, request_id=g.request_id)
        _audit(session, "publish", found, ordered, pushes)
        return ordered

    return _answer_with_version(enqueue(order))


@algorithm_route(blueprint, "/versions", ["GET"])
@blueprint.input(VersionsQuery, location="query", arg_name="query")
@blueprint.output(VersionsPage)
def list_versions(algorithm: str, query: VersionsQuery) -> Response:
    """The compiled and published versions, newest first."""
    with database().reading() as session:
        found = find_algorithm(session, algorithm)
        caller().require_reader(found)
        rows = select(Version).where(Version.algorithm_id == found.id)
        if query.published is not None:
            is_published = Version.publish_state == PublishState.PUBLISHED
            rows = rows.where(is_published if query.published else ~is_published)
        if query.callable is not None:
            built = exists().where(Build.version_id == Version.id, Build.status == BuildStatus.SUCCEEDED)
            rows = rows.where(built if query.callable else ~built)
        page, marker = page_of(session, rows, Version.seq, query)
        return json_response(paged(shown_versions(session, found, [row[0] for row in page]), marker))


@algorithm_route(blueprint, "/versions/<git_hash>", ["GET"])
@blueprint.output(VersionResponse)
def get_version(algorithm: str, git_hash: str) -> Response:
    """One version."""
    with database().reading() as session:
        found = find_algorithm(session, algorithm)
        caller().require_reader(found)
        version = find_version(session, found, git_hash)
        return json_response(shown_versions(session, found, [version])[0])


def _push_requests(session: Session, pushes: Sequence[PushCredentialsRequest]) -> list[PushRequest]:
    if len({push.registry_id for push in pushes}) < len(pushes):
        raise InvalidInputError("registry_push_credentials names a registry twice; one push each.")
    return [push_request(session, push) for push in pushes]


def _audit(
    session: Session, action: str, algorithm: Algorithm, ordered: Enqueued, pushes: Sequence[PushRequest]
) -> None:
    if ordered.repeated:
        return
    registries = [push.registry_id for push in pushes]
    commit = ordered.build.commit_sha if ordered.build else None
    audit(
        session, action, ordered.job.id, owner=algorithm.owner, algorithm=algorithm.path, commit=commit, to=registries
    )


def _pinned(session: Session, algorithm: Algorithm, commit: str) -> Version:
    """The version that a publish pins; one that was never compiled is a mistake in the body, not in the address."""
    try:
        return find_version(session, algorithm, commit)
    except RequestError as refusal:
        raise InvalidInputError(f"commitSha: {refusal.message}") from None


def _publish_options(body: PublishRequest, version: Version | None) -> PublishOptions:
    info = body.version_info or PublishVersionRequest()
    return PublishOptions(
        version_type=info.version_type,
        callability=body.settings.algorithm_callability if body.settings else "private",
        release_notes=info.release_notes,
        sample_input=info.sample_input,
        sample_output=info.sample_output,
        version=version,
    )


def _answer_with_version(job_id: str) -> Response:
    with database().reading() as session:
        shown = shown_enqueued(session, session.scalars(select(Job).where(Job.id == job_id)).one())
    return name_job(json_response(shown), job_id)
