"""The WSGI application of `longshore git`: git's smart HTTP protocol, and internal calls of the API.

`/git/OWNER/NAME.git/…` is for git clients; its errors are plain text. `/internal/…` is for `shared.git.hosted` and
takes its tokens only. Each server process makes its own application after the fork, because it starts a thread.
"""

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from api.authentication import record_denied
from api.authorization_header import secret_of
from api.errors import ApiError, Code, api_error
from api.git.authentication import Grant, authenticate, grant, grant_token
from api.git.backend import GitRequest, respond
from api.git.concurrency import Kind, concurrency_limits
from api.git.connection import ClientConnection, ClientLeftError
from api.git.post_receive import catch_up, receive
from api.git.repositories import Repository, install_hooks, new_push_file, remove_leftovers
from api.git.request_body import PushLimitError
from api.git.responses import rejected_push, with_discarded_body
from api.git.upkeep import check_quota, upkeep
from api.proxy_headers import OWNER_HEADER, client_address, owner_tag
from api.rate_limits import rate_limits
from shared.audit import Actor
from shared.db.engine import database
from shared.db.models import Algorithm
from shared.errors import InvalidInputError, PermissionDeniedError, RequestError, UnavailableError
from shared.file_lock import file_lock
from shared.git.hosted import verify_git_token
from shared.settings import settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MAX_INTERNAL_BODY = 4096
DECLINE_COMPILE = "nocompile"
SERVICES = ("git-upload-pack", "git-receive-pack")

_OWNER = "longshore.owner"
"""The owner of the request's key, in the WSGI environment."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ROUTES = Map(
    [
        Rule("/git/<owner>/<name>.git/info/refs", endpoint="refs", methods=["GET"]),
        Rule(
            "/git/<owner>/<name>.git/<any('git-upload-pack','git-receive-pack'):service>",
            endpoint="rpc",
            methods=["POST"],
        ),
        Rule("/internal/repositories/<uuid:repository>", endpoint="delete", methods=["DELETE"]),
        Rule("/internal/repositories/<uuid:repository>/resolve", endpoint="resolve", methods=["POST"]),
        Rule("/healthz", endpoint="healthz", methods=["GET"]),
        Rule("/readyz", endpoint="readyz", methods=["GET"]),
    ],
    merge_slashes=False,
)

log = structlog.get_logger(__name__)


def create_app() -> "WSGIApplication":
    """Return the application, and start a thread that completes the pushes that a crash interrupted."""
    settings().repositories_dir.mkdir(parents=True, exist_ok=True)
    install_hooks()
    threading.Thread(target=_catch_up, name="catch-up", daemon=True).start()
    return _application


def _catch_up() -> None:
    try:
        remove_leftovers()
        catch_up()
    except Exception:  # the database may be unreachable; the next start does it again
        log.exception("catch_up_failed")


def _application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    request = Request(environ)
    connection = ClientConnection(environ.get("gunicorn.socket"))
    given_id = request.headers.get("X-Request-Id", "")
    request_id = given_id if _REQUEST_ID.fullmatch(given_id) else str(uuid.uuid4())
    response = _respond(request, connection, request_id)
    response.headers["X-Request-Id"] = request_id
    if owner := environ.get(_OWNER):
        response.headers[OWNER_HEADER] = owner_tag(owner)
    body = response(environ, start_response)
    if response.direct_passthrough:  # git's own, after which nothing is left of the request
        return body
    return with_discarded_body(body, request, connection, client_address(request) or "unknown")


def _respond(request: Request, connection: ClientConnection, request_id: str) -> Response:
    try:
        connection.check()  # the client may have waited long for a thread, and left
        endpoint, values = _ROUTES.bind_to_environ(request.environ).match()
        return _ENDPOINTS[endpoint](request, connection, request_id, **values)
    except ClientLeftError as error:
        log.info("client_left", request_id=request_id, path=request.path, reason=error.message)
        return Response(status=408)  # nobody reads it
    except RequestError as error:
        return _error_response(request, error, request_id)
    except HTTPException as error:
        status = error.code or 500
        code = Code.NOT_FOUND if status == 404 else Code.INVALID_REQUEST
        return _error_response(
            request, ApiError(status, code, f"{error.name}: {request.method} {request.path}"), request_id
        )
    except SQLAlchemyError:
        log.exception("database_failed", request_id=request_id)
        return _error_response(
            request,
            UnavailableError("The database is unreachable; send the request again in a few seconds.", retry_after=5),
            request_id,
        )
    except Exception:  # the client gets a sentence, never a stack trace
        log.exception("request_failed", request_id=request_id)
        return _error_response(
            request,
            ApiError(500, Code.INTERNAL, "An internal error; the log of the git service has its cause."),
            request_id,
        )


def _error_response(request: Request, raised: RequestError, request_id: str) -> Response:
    if isinstance(raised, PushLimitError):
        return rejected_push(raised.message)
    error = api_error(raised)
    if request.path.startswith("/git/"):
        # Git shows its user only errors of this content type.
        response = Response(error.message + "\n", error.status, mimetype="text/plain")
    else:
        response = _json({"error": {"id": request_id, "code": int(error.code), "message": error.message}}, error.status)
    response.headers.extend(error.headers)
    return response


def _refs(request: Request, connection: ClientConnection, request_id: str, owner: str, name: str) -> Response:
    if request.method != "GET":  # the route of GET takes HEAD as well
        raise MethodNotAllowed(["GET"])
    service = request.args.get("service", "")
    if service not in SERVICES:
        raise PermissionDeniedError("This server speaks git's smart HTTP protocol only: use git 1.6.6 or newer.")
    return _git(request, connection, request_id, f"{owner}/{name}", "info/refs", service)


def _rpc(
    request: Request, connection: ClientConnection, request_id: str, owner: str, name: str, service: str
) -> Response:
    if request.content_type != f"application/x-{service}-request":
        raise ApiError(415, Code.INVALID_REQUEST, f"The content type is application/x-{service}-request.")
    return _git(request, connection, request_id, f"{owner}/{name}", service, service)


def _git(
    request: Request, connection: ClientConnection, request_id: str, path: str, action: str, service: str
) -> Response:
    is_push = service == "git-receive-pack"
    secret = secret_of(request.headers.get("Authorization"))
    address = client_address(request) or "unknown"
    granted = _authorise(request, request_id, secret, address, path, pushes=is_push)
    actor = Actor(granted.user, granted.key_id, address, request_id)
    repository = Repository(granted.algorithm.id)
    held = ExitStack()  # until git has ended, which is after this call
    try:
        if granted.key_id is not None:  # the jobs of the workers are limited by the workers
            kind: Kind = "pushes" if is_push else "fetches"
            held.enter_context(concurrency_limits().request(kind, owner=granted.user, key_id=granted.key_id))
        options_file, shows_template = None, False
        if is_push:
            repository.ensure()
            check_quota(granted.algorithm.id)
        else:
            shows_template = repository.ensure_template(granted.algorithm)
        if action == "git-receive-pack":
            repository.remove_stale_locks()
            held.callback(upkeep().after_push, repository)
            held.enter_context(file_lock(repository.push_lock, shared=True))
            options_file = new_push_file()
            held.callback(options_file.unlink)
            held.callback(_record, repository, options_file, actor)
        connection.check()
        return respond(
            request,
            GitRequest(
                repository, action, service, granted.user, str(options_file) if options_file else None, shows_template
            ),
            connection,
            on_end=held.close,
        )
    except BaseException:  # git may not have started, and then nothing else calls it
        held.close()
        raise


def _record(repository: Repository, options_file: Path, actor: Actor) -> None:
    """Record a push that has ended, whatever came of it."""
    options = options_file.read_text("utf-8", "replace").splitlines()
    try:
        receive(repository, decline_compile=DECLINE_COMPILE in options, actor=actor)
    except Exception:  # the push itself has succeeded; the next push or start finds its head
        log.exception("push_not_recorded", algorithm_id=repository.id, request_id=actor.request_id)


def _authorise(
    request: Request, request_id: str, secret: str | None, address: str, path: str, *, pushes: bool
) -> Grant:
    """Return what the caller may use. All its requests count for its rate limit, also those that are rejected."""
    try:
        with database().reading() as session:
            caller = authenticate(session, secret)
            if caller is None:
                return grant_token(session, secret or "", path, pushes=pushes)
    except ApiError as refusal:
        if secret is not None and refusal.status == 401:
            rate_limits().count_unknown(address)
        raise
    request.environ[_OWNER] = caller.owner
    rate_limits().count_git(caller.owner)
    try:
        with database().reading() as session:
            return grant(session, caller, path, pushes=pushes)
    except PermissionDeniedError as refusal:
        record_denied(
            Actor(caller.owner, caller.key_id, address, request_id),
            request.method,
            request.full_path,
            refusal.message,
        )
        raise


def _delete(request: Request, _connection: ClientConnection, _request_id: str, repository: uuid.UUID) -> Response:
    _internal(request, repository).delete()
    return _json({})


def _resolve(request: Request, _connection: ClientConnection, _request_id: str, repository: uuid.UUID) -> Response:
    hosted = _internal(request, repository)
    request.max_content_length = MAX_INTERNAL_BODY
    body = request.get_json(silent=True)
    commit = body.get("commit") if isinstance(body, dict) else 0
    if commit is not None and not isinstance(commit, str):
        raise InvalidInputError('The body is {"commit": HASH or null}.')
    if commit is None:
        _ensure_template(hosted)
    full_hash = hosted.resolve(commit)
    hosted.keep(full_hash)
    return _json({"commit": full_hash})


def _ensure_template(repository: Repository) -> None:
    with database().reading() as session:
        algorithm = session.scalar(
            select(Algorithm).where(
                Algorithm.id == repository.id, Algorithm.repository_url.is_(None), Algorithm.deleted_at.is_(None)
            )
        )
    if algorithm is not None:
        repository.ensure_template(algorithm)


def _internal(request: Request, repository: uuid.UUID) -> Repository:
    if not verify_git_token(secret_of(request.headers.get("Authorization")) or "", "admin", str(repository)):
        raise ApiError(401, Code.BAD_KEY, "This address is for Longshore's own processes.")
    return Repository(str(repository))


def _readyz(*_: object) -> Response:
    database().ping()
    if not settings().repositories_dir.is_dir():
        raise UnavailableError("The directory of the repositories does not exist.", retry_after=5)
    return _json({"status": "ok"})


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(body), status, mimetype="application/json")


_ENDPOINTS: dict[str, Callable[..., Response]] = {
    "refs": _refs,
    "rpc": _rpc,
    "delete": _delete,
    "resolve": _resolve,
    "healthz": lambda *_: _json({"status": "ok"}),
    "readyz": _readyz,
}
