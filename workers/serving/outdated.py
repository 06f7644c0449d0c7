"""Whether a serving still is what its version's callers are to be served by."""

from sqlalchemy.orm import Session

from shared.algorithms import with_version
from shared.models import Serving
from shared.pulls.resolution import resolve_pull
from shared.servings.wanting import Wanted


def why_outdated(session: Session, serving: Serving) -> str | None:
    """Why a call would want another one now, in a sentence; None: it would want this one."""
    found = with_version(session, serving.version_id)
    if found is None:
        return "The algorithm was deleted."
    algorithm, version = found
    wanted = Wanted.of(algorithm, version, resolve_pull(session, algorithm, version))
    if wanted is None:
        return "The image cannot be pulled from anywhere any more."
    if wanted.image != serving.image:
        return "Calls go to another image now."
    if wanted.network != serving.network:
        return "The algorithm's network access was changed."
    return None
