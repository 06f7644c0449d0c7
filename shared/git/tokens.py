"""Short-lived tokens with which the API and the workers speak to the git service, signed with the installation's keys.

A token names what it is for, the one algorithm, and when it ends. The machines' clocks must agree to some seconds.
"""

import time
from typing import Literal

from shared.sealing import keyring

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
