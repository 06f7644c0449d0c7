"""`POST /v1/algorithms/ALGO/scm/webhook`: compile what was pushed to a repository elsewhere, as its server says."""

from typing import Any
from urllib.parse import parse_qs

import structlog
from flask import Response, g, request
from sqlalchemy import select

from api import dispatch
from api.enqueue import add_job_headers
from api.errors import ApiError, api_error
from api.owner_slots import remote_slots
from api.proxy_headers import client_address
from api.request_parsing import parse_json
from api.routing import algorithm_route, json_response, no_content, v1_blueprint
from api.schemas.source import IgnoredWebhookResponse
from api.source_webhooks.payloads import Push, is_of_other_repository
from api.source_webhooks.senders import Sender, find_sender
from shared.algorithms import AlgorithmNotFoundError, algorithm_not_found, find_algorithm
from shared.audit import Actor, record
from shared.commands.compile import enqueue_compile
from shared.commands.queue_limit import require_room_in_queue
from shared.db.engine import database
from shared.db.models import Algorithm
from shared.encryption import keyring
from shared.errors import InvalidInputError, WorkError
from shared.git.deliveries import delivery_digest, record_delivery
from shared.git.sources import list_repository
from shared.git.webhook_secrets import secret_to_verify
from shared.plain_text import plain_line
from shared.settings import settings

log = structlog.get_logger(__name__)
blueprint = v1_blueprint("source_webhooks")

ENDPOINT = "source_webhooks.receive_webhook"
"""The one endpoint below /v1 that takes no key: the sender's signature stands for it."""
MAX_BYTES = 1024**2
FORM = "application/x-www-form-urlencoded"
USUAL_BRANCHES = ("main", "master")
"""Taken for the default branch where neither the payload nor the repository names one."""
MAX_REASON_LENGTH = 300
ACTOR = "scm-webhook"
"""In the audit trail. No owner can have this name."""


@algorithm_route(blueprint, "/scm/webhook", ["POST"])
@blueprint.output({}, status_code=204)
def receive_webhook(algorithm_name: str) -> Response:
    """Compile what was pushed to the repository's default branch, as GitHub, GitLab, Bitbucket or Gitea report it.

    It takes no key. The delivery is signed with the webhook's secret: `X-Hub-Signature-256` of GitHub,
    `X-Gitlab-Token`, `X-Hub-Signature` of Bitbucket, or `X-Gitea-Signature`. 202 with a reason: nothing is compiled.
    """
    request.max_content_length = MAX_BYTES
    body = request.get_data(cache=False)
    algorithm = _find(algorithm_name)
    secret = secret_to_verify(keyring(), algorithm)
    sender = find_sender(request.headers)
    if sender is None or not sender.has_signed(request.headers, secret, body) or algorithm is None:
        raise _unknown(algorithm_name)
    structlog.contextvars.bind_contextvars(algorithm=algorithm.path, sender=sender.name)
    event = request.headers.get(sender.event_header, "")
    if event not in sender.pushes:
        return _ignored(
            f"The event {event} of {sender.name} is no push." if event else f"{sender.event_header} is missing."
        )
    push = sender.pushes[event](_payload(sender, body))
    if not settings().build_on_push:
        return _ignored("Builds on push are turned off here (LONGSHORE_BUILD_ON_PUSH).")
    if is_of_other_repository(push, algorithm.repository_url or ""):
        return _ignored("The push is to another repository than the algorithm's.")
    branch = _pushed_default_branch(algorithm, push)
    if branch is None:
        return _ignored("Only pushes to the default branch are compiled; tags and deleted branches are not.")
    return _compile(algorithm, branch, push.heads[branch], sender, body)


def _compile(algorithm: Algorithm, branch: str, commit: str, sender: Sender, body: bytes) -> Response:
    """Enqueue the compile of a commit, unless the delivery was received before."""
    delivery_id = sender.delivery_id(request.headers)
    # The signature covers the content alone: an old delivery could be sent again under a new id.
    digests = {delivery_digest(b"content", body)}
    if delivery_id is not None:
        digests.add(delivery_digest(sender.name.encode(), delivery_id.encode("utf-8", "surrogateescape")))
    with database().writing() as session:
        present = session.scalar(
            select(Algorithm).where(Algorithm.id == algorithm.id, Algorithm.deleted_at.is_(None)).with_for_update()
        )
        if present is None:
            raise _unknown(algorithm.path)
        if not record_delivery(session, present.id, digests):
            return _ignored("This delivery was received before.")
        require_room_in_queue(session, present.owner)
        enqueued = enqueue_compile(session, present, commit, request_id=g.request_id)
        record(
            session,
            Actor(ACTOR, None, client_address(request), g.request_id),
            "scm.push",
            present.id,
            owner=present.owner,
            algorithm=present.path,
            sender=sender.name,
            branch=branch,
            commit=commit,
            job_id=enqueued.job.id,
        )
    dispatch.send(enqueued.messages)
    log.info("webhook_compiles", commit=commit, job_id=enqueued.job.id)
    return add_job_headers(no_content(), enqueued.job.id)


def _find(name: str) -> Algorithm | None:
    with database().reading() as session:
        try:
            return find_algorithm(session, name)
        except AlgorithmNotFoundError:
            return None


def _unknown(name: str) -> ApiError:
    """Return the error of a delivery that nobody may send: the same whether or not there is such an algorithm."""
    return ApiError(
        404,
        api_error(algorithm_not_found(name)).code,
        f"No such algorithm: {name}. Or it has no webhook, or this delivery is not signed with the webhook's secret.",
    )


def _ignored(reason: str) -> Response:
    reason = plain_line(reason)
    log.info("webhook_ignored", reason=reason[:MAX_REASON_LENGTH])
    return json_response(IgnoredWebhookResponse(reason=reason[:MAX_REASON_LENGTH]), 202)


def _payload(sender: Sender, body: bytes) -> Any:
    """Return the payload of a delivery.

    Raises:
        InvalidInputError, ApiError: it is not JSON, or in a form that the sender does not use.
    """
    if request.mimetype == FORM and sender.sends_forms:
        try:
            return parse_json(parse_qs(body.decode(), strict_parsing=True, max_num_fields=10)["payload"][0])
        except (ValueError, KeyError):
            raise InvalidInputError("The form must have the field payload, with the JSON of the event.") from None
    if request.mimetype and request.mimetype != "application/json":
        raise InvalidInputError(
            f"The body is {plain_line(request.mimetype[:100])}; let {sender.name} send application/json."
        )
    return parse_json(body)


def _pushed_default_branch(algorithm: Algorithm, push: Push) -> str | None:
    """Return the default branch, if it was pushed: as the payload names it, or else the repository."""
    if not push.heads:
        return None
    branch = push.default_branch or _ask_default_branch(algorithm)
    if branch is not None:
        return branch if branch in push.heads else None
    return next((name for name in USUAL_BRANCHES if name in push.heads), None)


def _ask_default_branch(algorithm: Algorithm) -> str | None:
    if not remote_slots().acquire(algorithm.owner):
        return None
    try:
        return list_repository(algorithm).default_branch
    except WorkError:
        return None  # the build says what is wrong
    finally:
        remote_slots().release(algorithm.owner)
