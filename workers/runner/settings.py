"""Read the runner's settings from the environment, and make the environment of the algorithm's process."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Mapping  # noqa: UP035 - Python 3.8 cannot subscript collections.abc

DEFAULT_PORT = 8080
DEFAULT_MAX_REQUEST_BYTES = 10 * 1024 * 1024
MODULE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
STARTUP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "startup")
"""Directory on the path of every interpreter that the algorithm's process starts."""


class RunnerSettingsError(ValueError):
    """Raised when an environment variable is missing or invalid; the message names it."""


@dataclass(frozen=True)
class RunnerSettings:
    """The runner's settings.

    `module` is the algorithm's module in the package `src`. `port` is the TCP port, 0 for none; `socket_path` is the
    path of the unix socket to listen on as well. `socket_sealed`: the engine removes write permission for the socket's
    directory before the algorithm starts.
    """

    module: str
    port: int
    socket_path: str | None
    socket_sealed: bool
    max_request_bytes: int
    source_directory: str


def read_settings(environment: Mapping[str, str]) -> RunnerSettings:
    """Read the settings.

    Raises:
        RunnerSettingsError: a variable is missing or invalid.
    """
    module = environment.get("LONGSHORE_MODULE", "")
    if not MODULE_NAME.fullmatch(module):
        raise RunnerSettingsError(
            "LONGSHORE_MODULE must name the algorithm's module in src, without .py "
            f"(letters, digits, underscores and hyphens), not {module!r}."
        )
    port = _whole_number(environment, "LONGSHORE_PORT", DEFAULT_PORT, maximum=65535)
    socket_path = environment.get("LONGSHORE_SOCKET") or None
    if port == 0 and socket_path is None:
        raise RunnerSettingsError("LONGSHORE_PORT is 0 and LONGSHORE_SOCKET is not set: set one of them.")
    socket_sealed = _whole_number(environment, "LONGSHORE_SOCKET_SEALED", 0, maximum=1) == 1
    if socket_sealed and socket_path is None:
        raise RunnerSettingsError("LONGSHORE_SOCKET_SEALED is 1 and LONGSHORE_SOCKET is not set: set its path.")
    return RunnerSettings(
        module=module,
        port=port,
        socket_path=socket_path,
        socket_sealed=socket_sealed,
        max_request_bytes=_whole_number(environment, "LONGSHORE_MAX_REQUEST_BYTES", DEFAULT_MAX_REQUEST_BYTES),
        source_directory=os.getcwd(),
    )


def algorithm_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the algorithm's process: the container's, without the runner's variables.

    Output is unbuffered, so that everything a call printed can be read when its response arrives. `PYTHONPATH` begins
    with the directory that puts back what Python has dropped. Many libraries keep a cache below HOME: where HOME is not
    writable (unknown user, read-only root), it becomes /tmp.
    """
    variables = {name: value for name, value in environment.items() if not name.startswith("LONGSHORE_")}
    variables["PYTHONUNBUFFERED"] = "1"
    variables.setdefault("LANG", "C.UTF-8")
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, (STARTUP, variables.get("PYTHONPATH"))))
    if not os.access(variables.get("HOME", ""), os.W_OK):
        variables["HOME"] = "/tmp"  # noqa: S108 - the one directory that is writable in every image
    return variables


def _whole_number(environment: Mapping[str, str], name: str, default: int, maximum: int | None = None) -> int:
    text = environment.get(name, "").strip() or str(default)
    if not re.fullmatch(r"[0-9]{1,15}", text) or (maximum is not None and int(text) > maximum):
        limit = "" if maximum is None else f" up to {maximum}"
        raise RunnerSettingsError(f"{name} must be a whole number{limit}, not {text!r}.")
    return int(text)
