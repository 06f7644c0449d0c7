"""`…/builds`: builds of an algorithm, and their logs."""

from functools import partial

from flask import Response
from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from api.authentication import readable_algorithm
from api.pagination import Page, PageQuery, page_response
from api.presenters import present_builds
from api.responses import json_response
from api.routing import algorithm_route, v1_blueprint
from api.schemas.base import Query
from api.schemas.versions import BuildLogsResponse, BuildResponse
from shared.db.engine import database
from shared.db.models import Build, BuildStatus
from shared.errors import NotFoundError

blueprint = v1_blueprint("builds")


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
