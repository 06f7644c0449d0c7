"""Compile, publish and read versions of an algorithm, their builds and logs."""

from collections.abc import Sequence
from functools import partial

from flask import Response, g
from sqlalchemy import and_, select
from sqlalchemy.orm import Session, undefer

from api.algorithm_settings import merge_published_settings
from api.authentication import (
    audit,
    caller,
    managed_algorithm,
    readable_algorithm,
    readable_version,
)
from api.enqueue import add_job_headers, enqueue, repeated_job_id
from api.owner_slots import remote_slots
from api.pagination import Page, PageQuery, page_response
from api.presenters import present_builds, present_enqueued, present_versions
from api.request_parsing import push_request
from api.routing import algorithm_route, json_response, v1_blueprint
from api.schemas.base import Query
from api.schemas.pushes import PushCredentialsRequest
from api.schemas.versions import (
    BuildLogsResponse,
    BuildResponse,
    CompileRequest,
    PublishRequest,
    PublishVersionRequest,
    VersionResponse,
)
from api.source_choice import choose_source
from shared.algorithms import find_algorithm, find_version
from shared.commands.compile import enqueue_compile
from shared.commands.publish import PublishOptions, VersionType, enqueue_publish
from shared.commands.push import Enqueued, PushRequest
from shared.db.engine import database
from shared.db.models import Algorithm, Build, BuildStatus, Job, Version
from shared.db.models.algorithms import PublishState
from shared.errors import InvalidInputError, NotFoundError, RequestError
from shared.git.sources import resolve_commit

blueprint = v1_blueprint("versions")


class CompileQuery(Query):
    """Options of a compile."""

    force: bool = False
    refresh: bool = False
    """Resolve the requirements again and build, instead of using the existing environment."""


class VersionsQuery(PageQuery):
    """The versions to list."""

    published: bool | None = None
    callable: bool | None = None
    """Whether everybody may call them, or only their owner."""


@algorithm_route(blueprint, "/compile", ["POST"])
@blueprint.input(CompileQuery, location="query", arg_name="query")
@blueprint.input(CompileRequest, arg_name="body")
@blueprint.output(VersionResponse)
def compile_algorithm(algorithm_name: str, query: CompileQuery, body: CompileRequest) -> Response:
    """Build the image of a commit, and push it when it is built."""
    pushes: list[PushRequest] | None = []
    job_id = repeated_job_id()
    with database().reading() as session:
        algorithm = managed_algorithm(session, algorithm_name)
        if job_id is None:  # a repeat returns its job even if a registry was deleted since
            pushes = _push_requests(session, body.registry_push_credentials)
    if body.sshPrivateKey and not algorithm.hosted:
        raise InvalidInputError(
            "sshPrivateKey: a key cannot be given with a compile. Give the algorithm source.credentials, or ask the "
            "operator for an ssh key of the installation (LONGSHORE_SOURCE_SSH_KEY_SCOPES)."
        )
    # Resolving the commit takes up to ten seconds, so no transaction is open meanwhile (rule 6).
    commit = "" if job_id else _resolve_commit(algorithm, body.commitSha)

    def command(session: Session) -> Enqueued:
        present = find_algorithm(session, algorithm.id)
        enqueued = enqueue_compile(
            session,
            present,
            commit,
            pushes=pushes,
            force=query.force,
            refresh=query.refresh,
            request_id=g.request_id,
        )
        _audit(session, "compile", present, enqueued)
        return enqueued

    return _version_response(enqueue(command))


def _resolve_commit(algorithm: Algorithm, commit: str | None) -> str:
    if algorithm.hosted or commit is not None:
        return resolve_commit(algorithm, commit)
    with remote_slots().hold(caller().owner):
        return resolve_commit(algorithm, None)


@algorithm_route(blueprint, "/version", ["POST"])
@algorithm_route(blueprint, "/versions", ["POST"])
@blueprint.input(PublishRequest, arg_name="body")
@blueprint.output(VersionResponse)
def publish_version(algorithm_name: str, body: PublishRequest) -> Response:
    """Give the commit of the newest build a semantic version, make it callable, and push its image."""

    def command(session: Session) -> Enqueued:
        algorithm = managed_algorithm(session, algorithm_name)
        pushes = _push_requests(session, body.registry_push_credentials)
        if body.details is not None:
            algorithm.details = {**algorithm.details, **body.details.model_dump(exclude_none=True)}
        _require_present_source(body, algorithm)
        options = _publish_options(session, algorithm, body)
        if body.settings is not None:
            algorithm.settings = merge_published_settings(algorithm.settings, body.settings)
        enqueued = enqueue_publish(session, algorithm, options, pushes=pushes, request_id=g.request_id)
        _audit(
            session,
            "publish",
            algorithm,
            enqueued,
            settings=sorted(body.settings.model_fields_set) if body.settings else [],
        )
        return enqueued

    return _version_response(enqueue(command))


@algorithm_route(blueprint, "/versions", ["GET"])
@blueprint.input(VersionsQuery, location="query", arg_name="query")
@blueprint.output(Page[VersionResponse])
def list_versions(algorithm_name: str, query: VersionsQuery) -> Response:
    """List the compiled and published versions, newest first."""
    with database().reading() as session:
        algorithm = readable_algorithm(session, algorithm_name)
        rows = select(Version).where(Version.algorithm_id == algorithm.id)
        if query.published is not None:
            is_published = Version.publish_state == PublishState.PUBLISHED
            rows = rows.where(is_published if query.published else ~is_published)
        if query.callable is not None:
            is_public = and_(Version.publish_state == PublishState.PUBLISHED, Version.callability == "public")
            rows = rows.where(is_public if query.callable else ~is_public)
        return page_response(session, rows, Version.seq, query, partial(present_versions, session, algorithm))


@algorithm_route(blueprint, "/versions/<git_hash>", ["GET"])
@blueprint.output(VersionResponse)
def get_version(algorithm_name: str, git_hash: str) -> Response:
    """Return a version."""
    with database().reading() as session:
        algorithm, version = readable_version(session, algorithm_name, git_hash)
        return json_response(present_versions(session, algorithm, [version])[0])


def _push_requests(session: Session, pushes: Sequence[PushCredentialsRequest] | None) -> list[PushRequest] | None:
    """Return the requested pushes; None: to the default registry.

    Raises:
        NotFoundError: a registry is unknown.
        InvalidInputError: its credentials are invalid, or a registry is named twice.
    """
    if pushes is None:
        return None
    if len({push.registry_id for push in pushes}) < len(pushes):
        raise InvalidInputError("registry_push_credentials names a registry twice; name each registry once.")
    return [push_request(session, push) for push in pushes]


def _audit(session: Session, action: str, algorithm: Algorithm, enqueued: Enqueued, **detail: object) -> None:
    if not enqueued.repeated:
        audit(
            session,
            action,
            enqueued.job.id,
            owner=algorithm.owner,
            algorithm=algorithm.path,
            commit=enqueued.build.commit_sha if enqueued.build else None,
            to=list(enqueued.registry_ids),
            **detail,
        )


def _publish_options(session: Session, algorithm: Algorithm, body: PublishRequest) -> PublishOptions:
    given = body.version_info or PublishVersionRequest()
    return PublishOptions(
        version_type=given.version_type or VersionType.MINOR,
        semantic_version=given.semantic_version,
        callability=body.settings.algorithm_callability if body.settings else None,
        release_notes=given.release_notes,
        sample_input=given.sample_input,
        sample_output=given.sample_output,
        version=_pinned_version(session, algorithm, body.commitSha, given.git_hash),
    )


def _pinned_version(session: Session, algorithm: Algorithm, commit: str | None, git_hash: str | None) -> Version | None:
    """Return the version that a publish pins, under either name.

    Raises:
        InvalidInputError: it was never compiled (the error is in the body, not in the path), or the names differ.
    """
    found = [
        _compiled_version(session, algorithm, field, value)
        for field, value in (("commitSha", commit), ("version_info.git_hash", git_hash))
        if value is not None
    ]
    if len({version.id for version in found}) > 1:
        raise InvalidInputError("commitSha and version_info.git_hash are different commits; give one of them.")
    return found[0] if found else None


def _compiled_version(session: Session, algorithm: Algorithm, field: str, commit: str) -> Version:
    try:
        return find_version(session, algorithm, commit)
    except RequestError as error:
        raise InvalidInputError(f"{field}: {error.message}") from None


def _require_present_source(body: PublishRequest, algorithm: Algorithm) -> None:
    choice = choose_source(body.source, body.scmsCredentials, algorithm)
    if not choice.is_empty and (choice.credentials is not None or choice.url != algorithm.repository_url):
        raise InvalidInputError(
            "source, scmsCredentials: a publish cannot change them. Update the algorithm (PUT), compile, then publish."
        )


def _version_response(job_id: str) -> Response:
    with database().reading() as session:
        version = present_enqueued(session, session.scalars(select(Job).where(Job.id == job_id)).one())
    return add_job_headers(json_response(version), job_id)


class LogsQuery(Query):
    """The part of a log to return."""

    partial: bool = False


@algorithm_route(blueprint, "/builds", ["GET"])
@blueprint.input(PageQuery, location="query", arg_name="query")
@blueprint.output(Page[BuildResponse])
def list_builds(algorithm_name: str, query: PageQuery) -> Response:
    """List the builds, newest first."""
    with database().reading() as session:
        rows = select(Build).where(Build.algorithm_id == readable_algorithm(session, algorithm_name).id)
        return page_response(session, rows, Build.seq, query, partial(present_builds, session))


@algorithm_route(blueprint, "/builds/<build_id>", ["GET"])
@blueprint.output(BuildResponse)
def get_build(algorithm_name: str, build_id: str) -> Response:
    """Return a build."""
    with database().reading() as session:
        return json_response(present_builds(session, [_find_build(session, algorithm_name, build_id)])[0])


@algorithm_route(blueprint, "/builds/<build_id>/logs", ["GET"])
@blueprint.input(LogsQuery, location="query", arg_name="query")
@blueprint.output(BuildLogsResponse)
def get_build_logs(algorithm_name: str, build_id: str, query: LogsQuery) -> Response:
    """Return the log of a build that has ended, or its log so far with `partial=true`."""
    with database().reading() as session:
        build = _find_build(session, algorithm_name, build_id, with_log=True)
        if not BuildStatus(build.status).ended and not query.partial:
            raise NotFoundError(
                "The build is in progress; its log is available when it has ended, or now with ?partial=true."
            )
        return json_response(BuildLogsResponse(logs=build.log))


def _find_build(session: Session, algorithm_name: str, build_id: str, *, with_log: bool = False) -> Build:
    algorithm = readable_algorithm(session, algorithm_name)
    query = select(Build).where(Build.id == build_id, Build.algorithm_id == algorithm.id)
    build = session.scalar(query.options(undefer(Build.log)) if with_log else query)
    if build is None:
        raise NotFoundError(f"{algorithm.path} has no build with the id {build_id!r}.")
    return build
