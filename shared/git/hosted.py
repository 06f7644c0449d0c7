"""The hosted repositories, seen from the API and the workers: a client of the git service."""

import json
from typing import Any

import structlog
import urllib3

from shared.git.tokens import git_token
from shared.models import Algorithm
from shared.refusals import Code, Refusal, try_later
from shared.settings import settings

CALL_SECONDS = 10
TOKEN_SECONDS = 60
RETRY_SECONDS = 5

log = structlog.get_logger(__name__)


def delete(algorithm_id: str) -> None:
    """Remove the algorithm's repository. What is missed here the service finds at its next start.

    Raises:
        Refusal: 503, the git service is away.
    """
    _call("DELETE", algorithm_id, "")


def resolve(algorithm_id: str, commit: str | None) -> str:
    """The full hash of a commit that is kept from now on, whatever becomes of its branch.

    `commit` is a full hash or an unambiguous prefix of 7 or more; None: the newest of the default branch.

    Raises:
        Refusal: 400, there is no such commit, several begin so, the repository is empty, or its default branch was
            deleted; 503, the git service is away.
    """
    answer = _call("POST", algorithm_id, "/resolve", {"commit": commit})
    resolved: str = answer["commit"]
    return resolved


def internal_url(algorithm: Algorithm) -> str:
    """What a worker fetches, straight from the git service."""
    return f"{settings().resolved_git_url.rstrip('/')}/git/{algorithm.path}.git"


def _call(method: str, algorithm_id: str, suffix: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    url = f"{settings().resolved_git_url.rstrip('/')}/internal/repositories/{algorithm_id}{suffix}"
    headers = {"Authorization": f"Bearer {git_token('admin', algorithm_id, TOKEN_SECONDS)}"}
    try:
        with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=CALL_SECONDS)) as pool:
            answer = pool.request(method, url, json=body, headers=headers)
            content = json.loads(answer.data) if answer.data else {}
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        log.warning("git_service_away", error=type(error).__name__, method=method)
        raise _away() from None
    if answer.status == 400:
        raise Refusal(400, Code(content["error"]["code"]), content["error"]["message"])
    if not 200 <= answer.status < 300:
        log.warning("git_service_refused", status=answer.status, method=method, answer=content)
        raise _away()
    answered: dict[str, Any] = content
    return answered


def _away() -> Refusal:
    return try_later("The git service is away; send the request again in a few seconds.", seconds=RETRY_SECONDS)
