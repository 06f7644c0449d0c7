"""`/v1/algorithms/ALGO/scm/…`: whether the repository of an algorithm can be read, and the secret of its webhook."""

from flask import Response, request
from sqlalchemy.orm import Session

from api.authentication import audit, caller, managed_algorithm
from api.owner_slots import remote_slots
from api.proxy_headers import public_url
from api.routing import algorithm_route, json_response, v1_blueprint
from api.schemas.source import ConnectionStatus, ScmStatusResponse, WebhookSecretResponse
from shared.db.engine import database
from shared.db.models import Algorithm
from shared.encryption import keyring
from shared.errors import ConflictError, ErrorClass, WorkError
from shared.git.access import public_ssh_key
from shared.git.sources import list_repository, parse_repository_url
from shared.git.webhook_secrets import make_webhook_secret

blueprint = v1_blueprint("source")

STATUS_OF_ERROR: dict[ErrorClass, ConnectionStatus] = {
    ErrorClass.AUTH: "deploy_key_error",
    ErrorClass.NOT_FOUND: "deploy_key_error",
}


@algorithm_route(blueprint, "/scm/status", ["GET"])
@blueprint.output(ScmStatusResponse)
def get_scm_status(algorithm_name: str) -> Response:
    """Return whether the repository can be read, and the address of its webhook.

    The first response about a repository elsewhere makes the webhook's secret, and only that response shows it.
    """
    with database().reading() as session:
        algorithm = managed_algorithm(session, algorithm_name)
    if algorithm.hosted:
        return json_response(ScmStatusResponse(scm_connection_status="active"))
    status, message = _ask(algorithm)
    return json_response(
        ScmStatusResponse(
            scm_connection_status=status,
            message=message,
            repository_public_deploy_key=_deploy_key(algorithm),
            repository_webhook_url=_webhook_url(algorithm),
            repository_webhook_secret=_first_secret(algorithm_name) if request.method == "GET" else None,
        )
    )


@algorithm_route(blueprint, "/scm/webhook/secret", ["POST"])
@blueprint.output(WebhookSecretResponse)
def rotate_webhook_secret(algorithm_name: str) -> Response:
    """Make a new secret of the webhook. The old one is refused from then on."""
    with database().writing() as session:
        algorithm = managed_algorithm(session, algorithm_name)
        if algorithm.hosted:
            raise ConflictError("Longshore hosts this repository and compiles what is pushed; it needs no webhook.")
        secret = _make_secret(session, algorithm)
        return json_response(
            WebhookSecretResponse(repository_webhook_url=_webhook_url(algorithm), repository_webhook_secret=secret)
        )


def _ask(algorithm: Algorithm) -> tuple[ConnectionStatus, str | None]:
    with remote_slots().hold(caller().owner):
        try:
            list_repository(algorithm)
        except WorkError as error:
            return STATUS_OF_ERROR.get(error.error_class, "provider_internal_error"), error.message
    return "active", None


def _deploy_key(algorithm: Algorithm) -> str | None:
    try:
        return public_ssh_key(parse_repository_url(algorithm.repository_url or ""), algorithm.owner)
    except ValueError:
        return None  # a URL that the settings do not allow any more


def _webhook_url(algorithm: Algorithm) -> str:
    """Return the address by id: an algorithm of the same name that is created later has another one."""
    return f"{public_url()}/v1/algorithms/{algorithm.id}/scm/webhook"


def _first_secret(algorithm_name: str) -> str | None:
    """Return the webhook's secret if this request makes it; None: there is one already."""
    with database().writing() as session:
        algorithm = managed_algorithm(session, algorithm_name)
        return None if algorithm.hosted or algorithm.webhook_secret else _make_secret(session, algorithm)


def _make_secret(session: Session, algorithm: Algorithm) -> str:
    audit(
        session,
        "scm.webhook_secret",
        algorithm.id,
        owner=algorithm.owner,
        algorithm=algorithm.path,
        rotated=algorithm.webhook_secret is not None,
    )
    return make_webhook_secret(keyring(), algorithm)
