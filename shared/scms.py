"""Source code management systems: Longshore's own repositories, and those of LONGSHORE_SCMS."""

from shared.errors import InvalidInputError
from shared.settings import settings
from shared.settings.scms import Scm

TOKEN_USERS = {
    "github": "x-access-token",
    "gitlab": "oauth2",
    "bitbucket": "x-token-auth",
    "bitbucket-cloud": "x-token-auth",
}
"""The user names that providers document for an access token as password of git over https."""


def find_scm(scm_id: str | None) -> Scm | None:
    """Return the configured system with this id."""
    return next((scm for scm in settings().scms if scm.id == scm_id), None)


def enabled_scm(scm_id: str) -> Scm:
    """Return the system in which a repository may be chosen.

    Raises:
        InvalidInputError: there is none with this id, or it is disabled.
    """
    scm = find_scm(scm_id)
    if scm is None:
        known = ", ".join(("internal", *(one.id for one in settings().scms)))
        raise InvalidInputError(f"source.scm: {scm_id[:100]!r} is not configured here; there are {known}.")
    if not scm.enabled:
        raise InvalidInputError(f"source.scm: {scm_id!r} is disabled here; ask the operator.")
    return scm


def repository_url_in(scm: Scm, owner: str, name: str) -> str:
    """Return the https URL of a repository. The names are only joined: the URL must be checked like any other."""
    middle = "/scm" if scm.provider == "bitbucket" else ""
    return f"{scm.urls.web}{middle}/{owner}/{name.removesuffix('.git')}.git"
