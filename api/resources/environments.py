"""`/v1/algorithm-environments`: languages, their environments, and the template of an environment."""

from typing import Any

from flask import Response

from api.errors import ApiError, Code
from api.routing import json_response, list_of, v1_blueprint
from api.schemas.environments import EnvironmentListResponse, LanguageResponse, present_environment
from shared.environments import (
    LANGUAGES,
    UnknownEnvironmentError,
    environments,
    find_environment,
    find_specification,
    language_names,
)
from shared.template import DEFAULT_NAME, template_archive, template_files

blueprint = v1_blueprint("environments")

TEMPLATE_OWNER = "OWNER"
"""Stands in the template for the owner of an algorithm that does not exist yet."""
TEMPLATE_RESPONSES: dict[int | str, dict[str, str | dict[str, dict[str, Any]]]] = {
    200: {
        "description": "A gzipped tar of the source of a new algorithm.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@blueprint.get("/algorithm-environments/edge/languages")
@blueprint.output(list_of(LanguageResponse))
def list_languages() -> Response:
    """List the values of `settings.language`: the language, with all environments, and each environment alone."""
    return json_response(
        [LanguageResponse(name=name, display_name=find_environment(name).display_name) for name in language_names()]
    )


@blueprint.get("/algorithm-environments/edge/languages/<language>/environments")
@blueprint.output(EnvironmentListResponse)
def list_environments(language: str) -> Response:
    """List the environments of a language."""
    try:
        found = environments() if language in LANGUAGES else [find_environment(language)]
    except UnknownEnvironmentError as error:
        raise ApiError(404, Code.UNKNOWN_LANGUAGE, f"language: {error.message}") from None
    return json_response(EnvironmentListResponse(environments=[present_environment(one) for one in found]))


@blueprint.get("/algorithm-environments/edge/environment-specifications/<specification>/template")
@blueprint.doc(responses=TEMPLATE_RESPONSES)
def get_template(specification: str) -> Response:
    """Return the source of a new algorithm for an environment, by its id, specification id or name."""
    environment = find_specification(specification)
    archive = template_archive(template_files(DEFAULT_NAME, TEMPLATE_OWNER, environment.name))
    response = Response(archive, mimetype="application/octet-stream")
    response.headers["Content-Disposition"] = 'attachment; filename="template.tar.gz"'
    return response
