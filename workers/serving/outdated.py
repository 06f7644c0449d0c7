"""Whether a serving still is what its version's callers are to be served by."""

from sqlalchemy.orm import Session

from shared.algorithms import with_version
from shared.models import Instance
from shared.pulls.resolution import resolve_pull
from shared.instances.wanting import DesiredState


def why_outdated(session: Session, instance: Instance) -> str | None:
    """Why a call would want another one now, in a sentence; None: it would want this one."""
    found = with_version(session, instance.version_id)
    if found is None:
        return "The algorithm was deleted."
    algorithm, version = found
    wanted = DesiredState.of(algorithm, version, resolve_pull(session, algorithm, version))
    if wanted is None:
        return "The image cannot be pulled from anywhere any more."
    if wanted.image != instance.image:
        return "Calls go to another image now."
    if wanted.network != instance.network:
        return "The algorithm's network access was changed."
    return None
