"""A caller at a shell: every command is printed as it is and then run by the shell, with variables for what repeats.

Secrets are variables too, so the printed text holds none; should an answer hold one, it is shown by its name.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from dev.demo.screen import Screen

_MAX_COMMAND_SECONDS = 120
_SHOWN_HEADERS = ("location", "docker-content-digest")


class StepFailedError(Exception):
    """Something was not as it should be; the text says what."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, with its body as JSON where it is that."""

    status: int
    headers: dict[str, str]
    body: Any


class Caller:
    """Runs commands in `directory`, with a git and a curl that heed nobody's settings."""

    def __init__(self, screen: Screen, directory: Path) -> None:
        self._screen = screen
        self._directory = directory
        self._variables: dict[str, str] = {}
        self._secrets: set[str] = set()

    @property
    def variables(self) -> Mapping[str, str]:
        """The variables so far."""
        return self._variables

    def remember(self, name: str, value: str, *, secret: bool = False) -> None:
        """Give commands a variable."""
        self._variables[name] = value
        if secret:
            self._secrets.add(name)
        self._screen.line(f"{name}={'(secret)' if secret else value}", style="33")

    def run(self, command: str) -> str:
        """Print a command, run it, and print and return what it says.

        Raises:
            StepFailedError: it ended with a status other than 0.
        """
        self._screen.command(command)
        said = self._masked(self._run(command, merged=True)).strip()
        self._screen.lines(said)
        return said

    def curl(
        self,
        command: str,
        show: Sequence[str] = (),
        *,
        status: int = 200,
        learn: Mapping[str, str] | None = None,
        secret: Set[str] = frozenset(),
    ) -> Answer:
        """Print a `curl -sSi …`, run it, print the answer's status and the fields in `show`, and return it all.

        Args:
            status: what is to be answered.
            learn: variables to remember, by the dotted name of their field.
            secret: those that are never printed.

        Raises:
            StepFailedError: curl failed, or something else was answered.
        """
        self._screen.command(command)
        with self._screen.waiting("waiting for the answer"):
            answer = _parsed(self._run(command))
        if answer.status != status:
            raise StepFailedError(f"answered {answer.status} instead of {status}: {self._masked(str(answer.body))}")
        learned = {name: str(field(answer.body, path)) for name, path in (learn or {}).items()}
        self._variables |= learned
        self._secrets |= secret
        self._show(answer, show)
        for name, value in learned.items():
            self.remember(name, value, secret=name in secret)
        return answer

    def ask(self, path: str, *, key: str = "KEY") -> Any:
        """What a GET of `path` answers, without showing it: for progress.

        Raises:
            OSError: no answer.
        """
        request = Request(self._variables["URL"] + path)  # noqa: S310 - our own address
        request.add_header("Authorization", f"Simple {self._variables[key]}")
        with build_opener(ProxyHandler({})).open(request, timeout=30) as response:
            return json.load(response)

    def _run(self, command: str, *, merged: bool = False) -> str:
        try:
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=self._directory,
                env={**os.environ, **self._unset_habits(), **self._variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=_MAX_COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StepFailedError(f"the command did not end within {_MAX_COMMAND_SECONDS} s") from None
        if done.returncode != 0:
            said = self._masked(f"{done.stdout}{done.stderr or ''}").strip()
            raise StepFailedError(f"the command ended with status {done.returncode}: {said}")
        return done.stdout

    def _unset_habits(self) -> dict[str, str]:
        # Everything is on this machine: no proxy. Names, hooks and signatures of the user's own git stay out of it.
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

    def _show(self, answer: Answer, fields: Sequence[str]) -> None:
        headers = [f"{name}: {answer.headers[name]}" for name in _SHOWN_HEADERS if name in answer.headers]
        self._screen.line(" · ".join([f"HTTP {answer.status}", *headers]), style="32")
        if not fields:
            return
        several = isinstance(answer.body, list)
        shown = [_only(part, fields) for part in (answer.body if several else [answer.body])]
        for part in shown:
            self._screen.lines(self._masked(_written(part)))

    def _masked(self, text: str) -> str:
        for name in self._secrets:
            text = text.replace(self._variables[name], f"${name}")
        return text


def field(body: Any, path: str) -> Any:
    """The field that a dotted name means; None where there is none."""
    for name in path.split("."):
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _only(body: Any, paths: Sequence[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for path in paths:
        *parents, last = path.split(".")
        place = kept
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = field(body, path)
    return kept


def _written(body: dict[str, Any]) -> str:
    lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in body.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _parsed(text: str) -> Answer:
    status = 0
    headers: dict[str, str] = {}
    rest = text.replace("\r\n", "\n")
    while status < 200 and rest.startswith("HTTP/"):  # interim answers come first (RFC 9110, section 15.2)
        head, _, rest = rest.partition("\n\n")
        first, *lines = head.splitlines()
        status = int(first.split(" ")[1])
        pairs = [line.partition(":") for line in lines]
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    try:
        return Answer(status, headers, json.loads(rest))
    except ValueError:
        return Answer(status, headers, rest.strip())
