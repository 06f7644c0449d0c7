"""`/v1/scms`: the source code management systems in which owners may choose a repository."""

from flask import Response

from api.routing import json_response, v1_blueprint
from api.schemas.sources import ScmListResponse, ScmResponse, present_scms
from shared.errors import NotFoundError

blueprint = v1_blueprint("scms")


@blueprint.get("/scms")
@blueprint.output(ScmListResponse)
def list_scms() -> Response:
    """List the systems: Longshore's own repositories, and those of LONGSHORE_SCMS."""
    return json_response(present_scms())


@blueprint.get("/scms/<scm>")
@blueprint.output(ScmResponse)
def get_scm(scm: str) -> Response:
    """Return a system."""
    found = {one.id: one for one in present_scms().results}
    if scm not in found:
        raise NotFoundError(f"No SCM has the id {scm[:100]!r}; there are {', '.join(found)}.")
    return json_response(found[scm])
