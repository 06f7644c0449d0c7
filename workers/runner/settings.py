"""What the environment asks of the runner."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Mapping  # noqa: UP035 - Python 3.8 cannot subscript collections.abc

DEFAULT_PORT = 8080
DEFAULT_MAX_REQUEST_BYTES = 10 * 1024 * 1024
OUR_PREFIX = "LONGSHORE_"
NAME_FORM = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class SettingsError(ValueError):
    """A variable of the environment is missing or wrong; the message names it."""


@dataclass(frozen=True)
class Settings:
    """The runner's settings."""

    algorithm_name: str
    port: int
    """TCP port; 0 for none."""
    socket_path: str | None
    """Path of the unix socket to serve on as well."""
    socket_sealed: bool
    """Whether somebody takes the permission to write into the socket's directory away before the algorithm starts."""
    max_request_bytes: int
    source_directory: str


def settings_from(environment: Mapping[str, str]) -> Settings:
    """Read the settings.

    Raises:
        SettingsError: a variable is missing or wrong.
    """
    name = environment.get("LONGSHORE_ALGORITHM_NAME", "")
    if not NAME_FORM.fullmatch(name):
        raise SettingsError(
            "LONGSHORE_ALGORITHM_NAME must name the algorithm "
            f"(a letter, then letters, digits and underscores), not {name!r}."
        )
    port = _whole_number(environment, "LONGSHORE_PORT", DEFAULT_PORT, at_most=65535)
    socket_path = environment.get("LONGSHORE_SOCKET") or None
    if port == 0 and socket_path is None:
        raise SettingsError("LONGSHORE_PORT is 0 and LONGSHORE_SOCKET names no path: there is nothing to serve on.")
    socket_sealed = _whole_number(environment, "LONGSHORE_SOCKET_SEALED", 0, at_most=1) == 1
    if socket_sealed and socket_path is None:
        raise SettingsError("LONGSHORE_SOCKET_SEALED is 1 and LONGSHORE_SOCKET names no path to seal.")
    return Settings(
        algorithm_name=name,
        port=port,
        socket_path=socket_path,
        socket_sealed=socket_sealed,
        max_request_bytes=_whole_number(environment, "LONGSHORE_MAX_REQUEST_BYTES", DEFAULT_MAX_REQUEST_BYTES),
        source_directory=os.getcwd(),
    )


def algorithm_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the algorithm's process: the container's, without what is the runner's.

    Output is unbuffered, so that what a call printed is there when its answer is. Many libraries keep a cache under
    HOME: where that cannot be written (an unknown user, a read-only root), it is /tmp.
    """
    ours = {name: value for name, value in environment.items() if not name.startswith(OUR_PREFIX)}
    ours["PYTHONUNBUFFERED"] = "1"
    ours.setdefault("LANG", "C.UTF-8")
    if not os.access(ours.get("HOME", ""), os.W_OK):
        ours["HOME"] = "/tmp"  # noqa: S108 - the one place that is writable in every image
    return ours


def _whole_number(environment: Mapping[str, str], name: str, default: int, at_most: int | None = None) -> int:
    text = environment.get(name, "").strip() or str(default)
    if not re.fullmatch(r"[0-9]{1,15}", text) or (at_most is not None and int(text) > at_most):
        upper = "" if at_most is None else f" up to {at_most}"
        raise SettingsError(f"{name} must be a whole number{upper}, not {text!r}.")
    return int(text)
