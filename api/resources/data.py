"""`/v1/data/`: the listing of hosted data, which is always empty.

`algo auth` reads it to try a key. Everything below it is refused (`api.absent_parts`).
"""

from flask import Response

from api.routing import json_response, v1_blueprint
from api.schemas.base import ResponseModel

blueprint = v1_blueprint("data")


class DataListResponse(ResponseModel):
    """The collections and files of hosted data: none, because there is no hosted data yet."""

    folders: list[dict[str, str]]
    files: list[dict[str, str]]
    marker: str | None


@blueprint.get("/data")
@blueprint.output(DataListResponse)
def list_data() -> Response:
    """List hosted data: always empty, because there is none yet. Clients ask it to try a key."""
    return json_response(DataListResponse(folders=[], files=[], marker=None))
