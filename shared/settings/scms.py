"""The setting LONGSHORE_SCMS: source code management systems in which owners may choose repositories."""

import json
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

HOSTED_ID = "internal"
"""The id of Longshore's own repositories, which are always there."""
MAX_SCMS = 100
_WEB_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+(?:/[A-Za-z0-9._~-]+)*/?")

Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Provider = Literal["github", "gitlab", "bitbucket", "bitbucket-cloud"]
PUBLIC_URLS: dict[str, str] = {
    "github": "https://github.com",
    "gitlab": "https://gitlab.com",
    "bitbucket-cloud": "https://bitbucket.org",
}
"""The addresses of the providers that everybody uses. A `bitbucket` is a server of one's own."""


class ScmUrls(BaseModel):
    """The addresses of a system: of its pages (and of repositories over https), of its API, and for ssh."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    web: Text
    api: Text
    ssh: Text


class Scm(BaseModel):
    """A source code management system. `urls` follow from the provider, or from `urls.web`, where they are left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z")]
    provider: Provider
    name: Text
    enabled: bool = True
    urls: ScmUrls = Field(validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, entry: object) -> object:
        if not isinstance(entry, dict):
            raise ValueError("must be an object")
        given = entry.get("urls")
        urls = dict(given) if isinstance(given, dict) else {}
        web = str(urls.get("web") or PUBLIC_URLS.get(str(entry.get("provider")), "")).rstrip("/")
        if not _WEB_URL.fullmatch(web):
            raise ValueError("urls.web must be the https:// address of its pages")
        host = web.partition("://")[2].partition("/")[0].partition(":")[0]
        defaults = {"web": web, "api": _api_url(str(entry.get("provider")), web), "ssh": f"ssh://git@{host}"}
        return {"name": entry.get("id"), **entry, "urls": {**defaults, **urls, "web": web}}

    @field_validator("id")
    @classmethod
    def _is_not_the_hosted_one(cls, value: str) -> str:
        if value == HOSTED_ID:
            raise ValueError(f"{HOSTED_ID} is the id of the repositories that Longshore hosts")
        return value


def _api_url(provider: str, web: str) -> str:
    if web == PUBLIC_URLS["github"]:
        return "https://api.github.com"
    if provider == "bitbucket-cloud":
        return "https://api.bitbucket.org/2.0"
    return web + {"github": "/api/v3", "gitlab": "/api/v4"}.get(provider, "/rest/api/1.0")


def read_scms(text: str) -> tuple[Scm, ...]:
    """Return the systems of a JSON array.

    Raises:
        ValueError: it is no such array; the message names the entry and the field.
    """
    try:
        entries = json.loads(text or "[]")
    except ValueError:
        entries = None
    if not isinstance(entries, list) or len(entries) > MAX_SCMS:
        raise ValueError(
            'must be a JSON array such as [{"id": "github", "provider": "github", "name": "GitHub"}], '
            f"of at most {MAX_SCMS}"
        )
    scms = tuple(_read_scm(number, entry) for number, entry in enumerate(entries, start=1))
    ids = [scm.id for scm in scms]
    if len(set(ids)) < len(ids):
        raise ValueError("must not have an id twice")
    return scms


def _read_scm(number: int, entry: object) -> Scm:
    try:
        return Scm.model_validate(entry)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"]) or "it"
        message = problem["msg"].removeprefix("Value error, ")
        raise ValueError(f"entry {number}: {field}: {message[:1].lower()}{message[1:]}") from None
