"""The hosted repositories, seen from the API and the workers: a client of the git service.

Short-lived tokens with which the API and the workers speak to the git service, signed with the installation's keys.

A token names what it is for, the one algorithm, and when it ends. The machines' clocks must agree to some seconds.
"""

import json
import time
from typing import Any, Literal

import structlog
import urllib3

from shared.db.models import Algorithm
from shared.encryption import keyring
from shared.errors import InvalidInputError, RequestError, UnavailableError
from shared.settings import settings

CALL_SECONDS = 10
TOKEN_SECONDS = 60
RETRY_SECONDS = 5

log = structlog.get_logger(__name__)


def delete(algorithm_id: str) -> None:
    """Remove the algorithm's repository. What is missed here the service finds at its next start.

    Raises:
        UnavailableError: the git service does not respond.
    """
    _call("DELETE", algorithm_id, "")


def resolve(algorithm_id: str, commit: str | None) -> str:
    """The full hash of a commit that is kept from now on, whatever becomes of its branch.

    `commit` is a full hash or an unambiguous prefix of 7 or more; None: the newest of the default branch.

    Raises:
        InvalidInputError: no such commit, an ambiguous one, an empty repository, or a deleted default branch.
        UnavailableError: the git service does not respond.
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
        raise InvalidInputError(content["error"]["message"])
    if not 200 <= answer.status < 300:
        log.warning("git_service_refused", status=answer.status, method=method, answer=content)
        raise _away()
    answered: dict[str, Any] = content
    return answered


def _away() -> RequestError:
    return UnavailableError(
        "The git service is away; send the request again in a few seconds.", retry_after=RETRY_SECONDS
    )


TokenScope = Literal["fetch", "admin"]
"""`fetch`: read the algorithm's repository. `admin`: its internal calls (create, resolve, delete)."""

PREFIX = "lsgit"
PURPOSE = "git-token"


def git_token(scope: TokenScope, algorithm_id: str, seconds: float) -> str:
    """A token for one algorithm's repository that is good for so many seconds."""
    claim = f"{scope}.{algorithm_id}.{int(time.time() + seconds)}"
    return f"{PREFIX}.{claim}.{keyring().digest(claim.encode(), purpose=PURPOSE)}"


def is_git_token(secret: str) -> bool:
    """Whether a password looks like such a token, good or not."""
    return secret.startswith(f"{PREFIX}.")


def verify_git_token(token: str, scope: TokenScope, algorithm_id: str) -> bool:
    """Whether the token was made here for this scope and algorithm, and has not ended."""
    prefix, _, rest = token.partition(".")
    parts = rest.split(".", 3)
    if prefix != PREFIX or len(parts) != 4 or parts[:2] != [scope, algorithm_id]:
        return False
    claim, digest = ".".join(parts[:3]), parts[3]
    if not (parts[2].isascii() and parts[2].isdigit() and digest.isascii()):
        return False
    return keyring().verify_digest(digest, claim.encode(), purpose=PURPOSE) and int(parts[2]) >= time.time()
