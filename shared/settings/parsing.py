"""Settings as texts: how a variable is read, and how a value is shown."""

import base64
import binascii
import ipaddress
import json
from typing import Any


def parts_of(text: str) -> list[str]:
    """What stands between the commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def read_secret_keys(text: str) -> dict[str, str]:
    """Keys by their ids, in base64.

    Raises:
        ValueError: with what they must be.
    """
    return dict(_secret_key(entry) for entry in parts_of(text))


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
    """A JSON object.

    Raises:
        ValueError: with what it must be.
    """
    try:
        return json.loads(text or "{}")
    except ValueError:
        raise ValueError('must be a JSON object such as {"python39": "python:3.9-slim"}') from None


def read_delays(text: str) -> tuple[float, ...]:
    """Seconds.

    Raises:
        ValueError: one is no number.
    """
    return tuple(float(part) for part in parts_of(text))


def read_networks(value: object, *, with_exceptions: bool) -> object:
    """Networks, as a text or one by one; where exceptions are known, `!` in front makes one.

    Raises:
        ValueError: one is no network.
    """
    if isinstance(value, str):
        value = parts_of(value)
    if not isinstance(value, list | tuple):
        return value
    entries = tuple(str(entry) for entry in value)
    for entry in entries:
        try:
            ipaddress.ip_network(entry.removeprefix("!") if with_exceptions else entry)
        except ValueError:
            such = "10.0.0.0/8 or !10.1.0.0/16" if with_exceptions else "10.0.0.0/8"
            raise ValueError(f"must be networks such as {such}, comma-separated; {entry!r} is none") from None
    return entries


def shown(value: Any) -> str:
    """A value as one writes it into the variable."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return json.dumps(value) if value else ""
    if isinstance(value, tuple):
        return ",".join(part if isinstance(part, str) else f"{part:g}" for part in value)
    return str(value)


def masked(value: Any) -> str:
    """Whether there is a value, without it."""
    return "(set)" if value else ""
