"""Patterns of names, hashes and addresses for the OpenAPI document. Other modules check them in full."""

import re
from typing import Any

from shared.settings import Settings

OWNER = "^[A-Za-z][A-Za-z0-9_]{0,29}$"
ALGORITHM = "^[A-Za-z][A-Za-z0-9_]{0,62}$"
UUID = "^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"
HASH = "^[0-9A-Fa-f]{7,64}$"
WORKER_ID = "^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$"
LISTED_ALGORITHM = r"^(?:algo://)?(?:\*|[A-Za-z][A-Za-z0-9_]*/(?:\*|[A-Za-z][A-Za-z0-9_]*))$"
NO_CONTROL = r"^[^\x00-\x1F\x7F-\x9F]*$"
NO_CONTROL_OR_COLON = r"^[^\x00-\x1F\x7F-\x9F:]*$"
BOOLEAN = "^(?:[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]|[01]|[TtFfYyNn]|[Yy][Ee][Ss]|[Nn][Oo]|[Oo][Nn]|[Oo][Ff][Ff])$"

ROUTED_NAMES = ("version", "versions", "builds", "compile")
"""Names that an algorithm cannot have, because paths of the API contain them."""

_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
# Not 0, 169, 224 to 239 or 255: Longshore never connects to those (shared.net.address_rules).
_FIRST_BYTE = "(?:2(?:5[0-4]|4[0-9]|2[0-3]|[01][0-9])|1(?:[0-57-9][0-9]|6[0-8])|[1-9][0-9]?)"
_IPV4 = rf"{_FIRST_BYTE}(?:\.{_BYTE}){{3}}"
_H16 = "[0-9A-Fa-f]{1,4}"
_FIRST_H16 = "(?:[1-9A-Ea-e][0-9A-Fa-f]{0,3}|[Ff][CcDd][0-9A-Fa-f]{2})"
_IPV6 = "|".join(
    (
        f"{_FIRST_H16}(?::{_H16}){{7}}",
        f"{_FIRST_H16}(?::{_H16}){{0,6}}::",
        *(f"{_FIRST_H16}(?::{_H16}){{0,{6 - after}}}:(?::{_H16}){{1,{after}}}" for after in range(1, 7)),
        "::1",
    )
)
_PORT = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"

_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# The last label begins with a letter: some resolvers read names such as 127.1 and 0x7f.1 as addresses.
_LAST_LABEL = "[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_SEGMENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_PATH = f"(?:/{_SEGMENT})*/?"
_LOOPBACK = rf"(?:[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]|127(?:\.{_BYTE}){{3}}|\[::1\])(?::{_PORT})?"
_AUTHORITY = (
    rf"(?:(?:(?:{_LABEL}\.)+{_LAST_LABEL}|{_IPV4}|\[(?:{_IPV6})\]|[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt])(?::{_PORT})?"
    rf"|{_LAST_LABEL}:{_PORT})"
)
REGISTRY_URL = f"^(?:[Hh][Tt][Tt][Pp][Ss]?://)?{_AUTHORITY}{_PATH}$"
PLAIN_HTTP_URL = f"^(?:[Hh][Tt][Tt][Pp]://{_AUTHORITY}|{_LOOPBACK}){_PATH}$"
PROXY_URL = rf"^http://(?:(?:{_LABEL}\.)*{_LAST_LABEL}|{_IPV4}|\[(?:{_IPV6})\]):{_PORT}$"

_ALNUM = "[A-Za-z0-9]"
_SOURCE_LABEL = f"{_ALNUM}(?:[_-]*{_ALNUM})*"
_SOURCE_NAME = rf"(?:(?:{_SOURCE_LABEL}\.)*[A-Za-z](?:[_-]*{_ALNUM})*|{_IPV4})"
_SOURCE_HOST = rf"(?:{_SOURCE_NAME}|\[(?:{_IPV6})\])"
_SOURCE_FIRST, _SOURCE_REST = r"[A-Za-z0-9_~+@=,:!$&'()*;]", r"[A-Za-z0-9._~+@=,:!$&'()*;-]"
_SOURCE_PATH = f"(?:/{_SOURCE_FIRST}{_SOURCE_REST}*)+/?"
_SSH_USER = "(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,63}@)?"

_QUERY = r"[A-Za-z0-9._~+@=,:!$&'()*;%/-]"
WEBHOOK_URL = (
    rf"^(?:https://(?:(?:{_LABEL}\.)*{_LAST_LABEL}|{_IPV4})(?::{_PORT})?|http://{_LOOPBACK})"
    rf"(?:/{_QUERY}*)?(?:\?{_QUERY}*)?$"
)

_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "username": {"type": "string", "pattern": OWNER},
    "owner": {"type": "string", "pattern": OWNER},
    "name": {"type": "string", "pattern": ALGORITHM, "not": {"enum": list(ROUTED_NAMES)}},
    "git_hash": {"type": "string", "pattern": HASH},
}


def repository_url(configured: Settings) -> str:
    """Return the pattern of a repository URL under these settings; the empty text means no repository."""
    schemes = "[Hh][Tt][Tt][Pp][Ss]?" if configured.source_allow_http else "[Hh][Tt][Tt][Pp][Ss]"
    forms = [f"{schemes}://{_SOURCE_HOST}(?::{_PORT})?{_SOURCE_PATH}"]
    if configured.source_ssh_known_hosts is not None:
        forms.append(f"ssh://{_SSH_USER}{_SOURCE_HOST}(?::{_PORT})?{_SOURCE_PATH}")
        # git's short form has no brackets, and with two colons it would name a program that git runs.
        forms.append(rf"(?!\S*::){_SSH_USER}{_SOURCE_NAME}:{_SOURCE_FIRST}{_SOURCE_REST}*(?:{_SOURCE_PATH})?")
    return f"^(?:{'|'.join(forms)})?$"


def path_parameter(name: str) -> dict[str, Any]:
    return _PATH_PARAMETERS.get(name, {"type": "string", "format": "uuid"} if name.endswith("_id") else {})


def matches_path_parameter(name: str, value: str) -> bool:
    schema = path_parameter(name)
    pattern = UUID if schema.get("format") == "uuid" else schema.get("pattern", "")
    return re.search(pattern, value) is not None and value not in schema.get("not", {}).get("enum", ())
