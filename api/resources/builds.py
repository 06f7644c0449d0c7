"""`…/builds`: the builds of an algorithm and their logs."""

from flask import Response
from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from api.authentication import caller
from api.pagination import PageQuery, page_of, paged
from api.presenters import shown_builds
from api.responses import json_response
from api.routing import algorithm_route, v1_blueprint
from api.schemas.base import Query, ResponseModel
from api.schemas.versions import BuildLogsResponse, BuildResponse
from shared.algorithms import find_algorithm
from shared.db.engine import database
from shared.db.models import Build, BuildStatus
from shared.errors import NotFoundError

blueprint = v1_blueprint("builds")


class LogsQuery(Query):
    """How much of a log."""

    partial: bool = False


class BuildsPage(ResponseModel):
    """A page of builds."""

    marker: str | None
    next_link: str | None
    results: list[BuildResponse]


@algorithm_route(blueprint, "/builds", ["GET"])
@blueprint.input(PageQuery, location="query", arg_name="query")
@blueprint.output(BuildsPage)
def list_builds(algorithm: str, query: PageQuery) -> Response:
    """The builds, newest first."""
    with database().reading() as session:
        found = find_algorithm(session, algorithm)
        caller().require_reader(found)
        page, marker = page_of(session, select(Build).where(Build.algorithm_id == found.id), Build.seq, query)
        return json_response(paged(shown_builds(session, [row[0] for row in page]), marker))


@algorithm_route(blueprint, "/builds/<build_id>", ["GET"])
@blueprint.output(BuildResponse)
def get_build(algorithm: str, build_id: str) -> Response:
    """One build."""
    with database().reading() as session:
        return json_response(shown_builds(session, [_find_build(session, algorithm, build_id)])[0])


@algorithm_route(blueprint, "/builds/<build_id>/logs", ["GET"])
@blueprint.input(LogsQuery, location="query", arg_name="query")
@blueprint.output(BuildLogsResponse)
def get_build_logs(algorithm: str, build_id: str, query: LogsQuery) -> Response:
    """The log of a build that has ended, or what there is of it with `partial=true`."""
    with database().reading() as session:
        build = _find_build(session, algorithm, build_id, with_log=True)
        if not BuildStatus(build.status).ended and not query.partial:
            raise NotFoundError(
                "The build is in progress; its log is here when it has ended, or now with ?partial=true."
            )
        return json_response(BuildLogsResponse(logs=build.log))


def _find_build(session: Session, algorithm: str, build_id: str, *, with_log: bool = False) -> Build:
    found = find_algorithm(session, algorithm)
    caller().require_reader(found)
    query = select(Build).where(Build.id == build_id, Build.algorithm_id == found.id)
    build = session.scalar(query.options(undefer(Build.log)) if with_log else query)
    if build is None:
        raise NotFoundError(f"{found.path} has no build with the id {build_id!r}.")
    return build
