"""A client of the git service, for the API and the workers.

They authenticate with short-lived tokens that are signed with the installation's keys. A token names its scope, one
algorithm, and its expiry, so the clocks of the machines must agree to some seconds.
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

REQUEST_TIMEOUT_SECONDS = 10
TOKEN_LIFETIME_SECONDS = 60
RETRY_SECONDS = 5
PREFIX = "lsgit"
PURPOSE = "git-token"
TokenScope = Literal["fetch", "admin"]
"""`fetch`: read the algorithm's repository. `admin`: its internal calls (resolve, delete)."""

log = structlog.get_logger(__name__)


def delete(algorithm_id: str) -> None:
    """Remove the algorithm's repository. If this fails, the service removes it at its next start.

    Raises:
        UnavailableError: the git service does not respond.
    """
    _call("DELETE", algorithm_id, "")


def resolve(algorithm_id: str, commit: str | None) -> str:
    """Return the full hash of a commit, which is kept from now on even if its branch is deleted or moved.

    `commit` is a full hash or an unambiguous prefix of 7 or more; None: the newest of the default branch.

    Raises:
        InvalidInputError: no such commit, an ambiguous one, an empty repository, or a deleted default branch.
        UnavailableError: the git service does not respond.
    """
    return str(_call("POST", algorithm_id, "/resolve", {"commit": commit})["commit"])


def internal_url(algorithm: Algorithm) -> str:
    """Return the URL from which workers fetch a hosted repository, without the gateway."""
    return f"{settings().resolved_git_url.rstrip('/')}/git/{algorithm.path}.git"


def _call(method: str, algorithm_id: str, suffix: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    url = f"{settings().resolved_git_url.rstrip('/')}/internal/repositories/{algorithm_id}{suffix}"
    headers = {"Authorization": f"Bearer {git_token('admin', algorithm_id, TOKEN_LIFETIME_SECONDS)}"}
    try:
        with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=REQUEST_TIMEOUT_SECONDS)) as pool:
            response = pool.request(method, url, json=body, headers=headers)
            content: dict[str, Any] = json.loads(response.data) if response.data else {}
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        log.warning("git_service_unreachable", error=type(error).__name__, method=method)
        raise _unavailable() from None
    if response.status == 400:
        raise InvalidInputError(content["error"]["message"])
    if not 200 <= response.status < 300:
        log.warning("git_service_failed", status=response.status, method=method, response=content)
        raise _unavailable()
    return content


def _unavailable() -> RequestError:
    return UnavailableError(
        "The git service does not respond; send the request again in a few seconds.", retry_after=RETRY_SECONDS
    )


def git_token(scope: TokenScope, algorithm_id: str, seconds: float) -> str:
    """Return a token for one algorithm's repository that expires after so many seconds."""
    claim = f"{scope}.{algorithm_id}.{int(time.time() + seconds)}"
    return f"{PREFIX}.{claim}.{keyring().digest(claim.encode(), purpose=PURPOSE)}"


def is_git_token(secret: str) -> bool:
    """Return whether a password has the form of such a token, valid or not."""
    return secret.startswith(f"{PREFIX}.")


def verify_git_token(token: str, scope: TokenScope, algorithm_id: str) -> bool:
    """Return whether this installation issued the token for this scope and algorithm, and it has not expired."""
    prefix, _, rest = token.partition(".")
    parts = rest.split(".", 3)
    if prefix != PREFIX or len(parts) != 4 or parts[:2] != [scope, algorithm_id]:
        return False
    claim, digest = ".".join(parts[:3]), parts[3]
    if not (parts[2].isascii() and parts[2].isdigit() and digest.isascii()):
        return False
    return keyring().verify_digest(digest, claim.encode(), purpose=PURPOSE) and int(parts[2]) >= time.time()
