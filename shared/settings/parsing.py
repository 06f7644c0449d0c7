"""Read settings from the text of their variables, and check the names of `LONGSHORE_*` variables.

A renamed variable stops the start and names the new one. Any other unknown one is only warned of, since an environment
may be shared with other programs. Variables that Kubernetes sets for services (service links) are left alone: a Service
named `longshore-api` puts LONGSHORE_API_PORT=tcp://10.0.0.1:80 into every pod of its namespace.
"""

import base64
import binascii
import difflib
import ipaddress
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

PREFIX = "LONGSHORE_"
RENAMED = {
    "LONGSHORE_GATE_NETWORKS": "LONGSHORE_GATEWAY_NETWORKS",
    "LONGSHORE_NODE_EMPTY_SECONDS": "LONGSHORE_NODE_DRAIN_TIMEOUT_SECONDS",
    "LONGSHORE_SERVING_MOST": "LONGSHORE_SERVING_MAX_INSTANCES",
    "LONGSHORE_STALLED_STILL_SECONDS": "LONGSHORE_STALLED_NO_PROGRESS_SECONDS",
}
"""Variables of earlier commits, with the names that replaced them."""
OTHERS = re.compile(r"LONGSHORE_(?:TEST|DEV|DEMO)_\w+")
_SERVICE_LINK_NAME = re.compile(
    r"LONGSHORE(?:_\w+)?_(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)
_SSH_KEY_SCOPE = re.compile(
    r"(?:\*|[A-Za-z][A-Za-z0-9_]*)=ssh://(?:[\w.-]+@)?(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d+)?(?:/\S*)?"
)
_PYTHON_VERSION = re.compile(r"3\.(?:[89]|[1-9][0-9])")
_SERVICE_LINK_PORT = re.compile(r"(?:tcp|udp|sctp)://\S+:\d+")
"""The value of `NAME_PORT`, whose name can be that of a setting (Kubernetes documentation, "Service", "Discovering
services", environment variables)."""


def split_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def read_secret_keys(text: str) -> dict[str, str]:
    """Return encryption keys in base64 by their ids.

    Raises:
        ValueError: the form is wrong.
    """
    return dict(_secret_key(entry) for entry in split_list(text))


def _secret_key(entry: str) -> tuple[str, str]:
    key_id, _, encoded = entry.partition(":")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raw = b""
    if not key_id.isalnum() or len(key_id) > 16 or len(raw) != 32:
        raise ValueError("must be ID:BASE64[,ID:BASE64…], each with a short alphanumeric ID and 32 bytes in base64")
    return key_id, encoded


def read_environments(text: str) -> Any:
    """Return the parsed JSON object.

    Raises:
        ValueError: it is not valid JSON.
    """
    try:
        return json.loads(text or "{}")
    except ValueError:
        raise ValueError('must be a JSON object such as {"python39": "python:3.9-slim"}') from None


def read_python_versions(text: str) -> tuple[str, ...]:
    """Return versions of Python such as 3.8.

    Raises:
        ValueError: one has another form, or is too old for the runner.
    """
    versions = tuple(split_list(text))
    for version in versions:
        if not _PYTHON_VERSION.fullmatch(version):
            raise ValueError(f"must be versions such as 3.8,3.12, from 3.8 on, comma-separated; {version!r} is not one")
    return versions


def read_delays(text: str) -> tuple[float, ...]:
    """Return delays in seconds.

    Raises:
        ValueError: one is not a number.
    """
    return tuple(float(part) for part in split_list(text))


def read_networks(value: object, *, with_exceptions: bool) -> object:
    """Return networks given as text or as a sequence; with exceptions, `!` in front excludes a network.

    Raises:
        ValueError: one is not a network.
    """
    if isinstance(value, str):
        value = split_list(value)
    if not isinstance(value, list | tuple):
        return value
    entries = tuple(str(entry) for entry in value)
    for entry in entries:
        try:
            ipaddress.ip_network(entry.removeprefix("!") if with_exceptions else entry)
        except ValueError:
            such = "10.0.0.0/8 or !10.1.0.0/16" if with_exceptions else "10.0.0.0/8"
            raise ValueError(f"must be networks such as {such}, comma-separated; {entry!r} is not one") from None
    return entries


def read_ssh_key_scopes(text: str) -> tuple[str, ...]:
    """Return scopes of the ssh key, each OWNER=PREFIX.

    Raises:
        ValueError: one has another form.
    """
    scopes = tuple(split_list(text))
    for scope in scopes:
        if not _SSH_KEY_SCOPE.fullmatch(scope):
            raise ValueError(f"must be such as acme=ssh://git@git.example.com/acme, comma-separated; {scope!r} is not")
    return scopes


def existing_file(path: Path | None) -> Path | None:
    """Return the path.

    Raises:
        ValueError: there is no such file.
    """
    if path is not None and not path.is_file():
        raise ValueError(f"names {path}, which is no file")
    return path


def to_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return json.dumps(value) if value else ""
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return json.dumps([part.model_dump() for part in value])
    if isinstance(value, tuple):
        return ",".join(part if isinstance(part, str) else f"{part:g}" for part in value)
    return str(value)


def masked(value: Any) -> str:
    return "(set)" if value else ""


def is_service_link(variable: str, value: str) -> bool:
    is_port = variable.endswith("_PORT") and _SERVICE_LINK_PORT.fullmatch(value) is not None
    return is_port or _SERVICE_LINK_NAME.fullmatch(variable) is not None


def renamed_variables(environment: Mapping[str, str]) -> list[str]:
    return [f"{old}: is named {new} now; rename it." for old, new in RENAMED.items() if old in environment]


def unknown_variables(environment: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """Return advice for each `LONGSHORE_*` variable that is not in `known`, with the nearest name that is."""
    advice = {}
    names = [variable.removeprefix(PREFIX) for variable in known]
    for variable, value in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in known or OTHERS.fullmatch(variable):
            continue
        if not is_service_link(variable, value):
            # Without the prefix, which all have in common.
            nearest = difflib.get_close_matches(variable.removeprefix(PREFIX), names, n=1)
            meant = f"did you mean {PREFIX}{nearest[0]}?" if nearest else "`longshore settings` lists them all."
            advice[variable] = f"no such setting; {meant}"
    return advice
