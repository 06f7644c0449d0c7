"""Act as a caller at a shell: every command is printed and then run by the shell, with variables for repeated values.

Secrets are variables too, so the printed commands have none; one in a response is replaced by its variable's name.
"""

import json
import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from dev.demo.screen import Screen

_COMMAND_TIMEOUT_SECONDS = 120
_SHOWN_HEADERS = ("location", "docker-content-digest")


class StepFailedError(Exception):
    """Raised when a step of the demo does not have the expected result."""


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP response; the body is parsed if it is JSON, else text."""

    status: int
    headers: dict[str, str]
    body: Any


class Caller:
    """Runs commands in `directory`, without the user's settings of git and curl."""

    def __init__(self, screen: Screen, directory: Path) -> None:
        self._screen = screen
        self._directory = directory
        self._variables: dict[str, str] = {}
        self._secrets: set[str] = set()

    @property
    def variables(self) -> Mapping[str, str]:
        """Variables of the commands."""
        return self._variables

    def set_variable(self, name: str, value: str, *, secret: bool = False) -> None:
        """Set a variable of the commands, and print it."""
        self._variables[name] = value
        if secret:
            self._secrets.add(name)
        self._screen.line(f"{name}={'(secret)' if secret else value}", style="33")

    def run(self, command: str) -> str:
        """Print a command, run it, and print and return its output.

        Raises:
            StepFailedError: it ended with a status other than 0.
        """
        self._screen.command(command)
        output = self._masked(self._run(command, merged=True)).strip()
        self._screen.lines(output)
        return output

    def curl(
        self,
        command: str,
        show: Sequence[str] = (),
        *,
        status: int = 200,
        variables: Mapping[str, str] | None = None,
        secrets: Collection[str] = (),
    ) -> HttpResponse:
        """Print and run a `curl -sSi …`, print the response's status and the fields in `show`, and return the response.

        Args:
            status: expected status.
            variables: variables to set, with the dotted names of their fields.
            secrets: variables whose values are never printed.

        Raises:
            StepFailedError: curl failed, or the response has another status.
        """
        self._screen.command(command)
        with self._screen.waiting("waiting for the response"):
            response = _parsed(self._run(command))
        if response.status != status:
            raise StepFailedError(f"status {response.status} instead of {status}: {self._masked(str(response.body))}")
        values = {name: str(field(response.body, path)) for name, path in (variables or {}).items()}
        self._variables |= values  # before the response is shown, so that secrets in it are masked
        self._secrets.update(secrets)
        self._show(response, show)
        for name, value in values.items():
            self.set_variable(name, value, secret=name in secrets)
        return response

    def get(self, path: str) -> Any:
        """Return the response to a GET of `path` without showing it, for progress.

        Raises:
            OSError: the request failed.
        """
        request = Request(self._variables["URL"] + path)  # noqa: S310 - our own address
        request.add_header("Authorization", f"Simple {self._variables['KEY']}")
        with build_opener(ProxyHandler({})).open(request, timeout=30) as response:
            return json.load(response)

    def _run(self, command: str, *, merged: bool = False) -> str:
        try:
            result = subprocess.run(
                ["sh", "-c", command],
                cwd=self._directory,
                env={**os.environ, **self._neutral_settings(), **self._variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=_COMMAND_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StepFailedError(f"the command did not end within {_COMMAND_TIMEOUT_SECONDS} s") from None
        if result.returncode != 0:
            output = self._masked(f"{result.stdout}{result.stderr or ''}").strip()
            raise StepFailedError(f"the command exited with status {result.returncode}: {output}")
        return result.stdout

    def _neutral_settings(self) -> dict[str, str]:
        # All services are on this machine: no proxy. Names, hooks and signatures of the user's git are not used.
        return {
            "NO_PROXY": "*",
            "no_proxy": "*",
            "CURL_HOME": str(self._directory),
            "HOME": str(self._directory),
            "XDG_CONFIG_HOME": str(self._directory),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            **{f"GIT_{who}_NAME": "Demo" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "demo@example.com" for who in ("AUTHOR", "COMMITTER")},
        }

    def _show(self, response: HttpResponse, fields: Sequence[str]) -> None:
        headers = [f"{name}: {response.headers[name]}" for name in _SHOWN_HEADERS if name in response.headers]
        self._screen.line(" · ".join([f"HTTP {response.status}", *headers]), style="32")
        if not fields:
            return
        for body in response.body if isinstance(response.body, list) else [response.body]:
            self._screen.lines(self._masked(_formatted(_selected(body, fields))))

    def _masked(self, text: str) -> str:
        for name in self._secrets:
            text = text.replace(self._variables[name], f"${name}")
        return text


def field(body: Any, path: str) -> Any:
    """Return the field with a dotted name; None if it is missing."""
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _selected(body: Any, paths: Sequence[str]) -> dict[str, Any]:
    selected: dict[str, Any] = {}
    for path in paths:
        *parents, last = path.split(".")
        target = selected
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = field(body, path)
    return selected


def _formatted(body: dict[str, Any]) -> str:
    lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in body.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _parsed(text: str) -> HttpResponse:
    status = 0
    headers: dict[str, str] = {}
    rest = text.replace("\r\n", "\n")
    while status < 200 and rest.startswith("HTTP/"):  # interim responses come first (RFC 9110, section 15.2)
        head, _, rest = rest.partition("\n\n")
        first, *lines = head.splitlines()
        status = int(first.split(" ")[1])
        pairs = [line.partition(":") for line in lines]
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    try:
        return HttpResponse(status, headers, json.loads(rest))
    except ValueError:
        return HttpResponse(status, headers, rest.strip())
