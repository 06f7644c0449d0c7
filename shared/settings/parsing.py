"""Convert settings from and to the text of their variables."""

import base64
import binascii
import ipaddress
import json
from typing import Any


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


def to_text(value: Any) -> str:
    """Return the value in the form of its variable."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return json.dumps(value) if value else ""
    if isinstance(value, tuple):
        return ",".join(part if isinstance(part, str) else f"{part:g}" for part in value)
    return str(value)


def masked(value: Any) -> str:
    """Return a placeholder for a secret value, empty if there is none."""
    return "(set)" if value else ""
