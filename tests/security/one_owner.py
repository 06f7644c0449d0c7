"""Attack with everything that one owner can do at the same time, and measure the delays of another owner."""

import http.client
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dev.services.processes import descendants
from tests.processes import command_of, has_ended
from tests.security.git_client import broken_chunked_push, broken_push, slow_fetch, slow_push
from tests.security.slow_network import (
    SlowClient,
    SlowNetwork,
    address_of,
    request_head,
    slow_body,
    slow_chunks,
    slow_network,
)
from tests.service.cli.running import Up
from tests.silent_server import silent_server

ATTACKER, OTHER = "attacker", "other"
DRIP_SECONDS = 5.0
VARIABLES = {
    "LONGSHORE_SOURCE_NETWORKS": "0.0.0.0/0,::/0",  # the repositories that never answer are on this machine
    "LONGSHORE_BUILD_ON_PUSH": "false",
    # The other owner asks without a pause, so that each delay is seen; the limit would end that.
    "LONGSHORE_RATE_LIMIT_GIT": "0",
}
"""Settings of an installation that is attacked."""
_HOSTED = {"details": {"label": "A"}, "settings": {"language": "python3"}}
_REQUEST_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Force:
    """How much of each the owner does at the same time."""

    slow_bodies: int = 64
    slow_pushes: int = 48
    silent_repositories: int = 24
    broken_pushes: int = 12


@dataclass
class Installation:
    """An installation with two owners, who have an algorithm `Hello` each; the other one's has a commit."""

    up: Up
    directory: Path
    attacker_key: str = field(repr=False)
    other_key: str = field(repr=False)

    def get(self) -> float:
        """Return the seconds that a GET of the other owner takes."""
        began = time.monotonic()
        status = self._request("GET", f"/v1/algorithms/{OTHER}/Hello")
        assert status == 200, status
        return time.monotonic() - began

    def health(self) -> float:
        """Return the seconds that `/healthz` takes."""
        began = time.monotonic()
        assert self._request("GET", "/healthz") == 200
        return time.monotonic() - began

    def ls_remote(self) -> float:
        """Return the seconds that `git ls-remote` of the other owner takes."""
        began = time.monotonic()
        listed = self._git("ls-remote", self._remote)
        assert "refs/heads/main" in listed
        return time.monotonic() - began

    def compile(self) -> int:
        """Request a compile of the other owner; return the status."""
        return self._request("POST", f"/v1/algorithms/{OTHER}/Hello/compile", b"{}")

    def push_a_commit(self) -> None:
        """Push the other owner's first commit."""
        self._git("init", "--quiet", "--initial-branch=main")
        (self.directory / "src").mkdir()
        (self.directory / "src" / "Hello.py").write_text("def apply(given):\n    return given\n")
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", "first")
        self._git("push", "--quiet", self._remote, "HEAD:main")

    def memory(self) -> dict[int, int]:
        """Return the resident bytes of each process of the installation."""
        return {pid: resident for pid in self.up.child.family() if (resident := _resident_bytes(pid))}

    def git_processes(self) -> dict[int, str]:
        """Return the processes of git that the installation runs, with their command lines."""
        commands = {pid: command_of(pid) for pid in descendants(self.up.child.pid) if not has_ended(pid)}
        return {pid: command for pid, command in commands.items() if Path(command.split(" ")[0]).name.startswith("git")}

    def wait_for_no_git(self, seconds: float) -> dict[int, str]:
        """Wait until no git runs; return the processes that still run after so many seconds."""
        deadline = time.monotonic() + seconds
        while (left := self.git_processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    @property
    def _remote(self) -> str:
        return f"{self.up.url.replace('://', f'://key:{self.other_key}@')}/git/{OTHER}/Hello.git"

    def _request(self, method: str, path: str, body: bytes | None = None) -> int:
        connection = http.client.HTTPConnection(*address_of(self.up.url), timeout=_REQUEST_TIMEOUT_SECONDS)
        try:
            headers = {"Authorization": f"Simple {self.other_key}", "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def _git(self, *arguments: str) -> str:
        environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0"}
        identity = ("-c", "user.name=Other", "-c", "user.email=other@example.org")
        command = ["git", *identity, *arguments]
        done = subprocess.run(command, cwd=self.directory, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


def make_owners(up: Up, directory: Path) -> Installation:
    """Make two owners in an installation, and let each kind of request be served once."""
    directory.mkdir()
    keys = [_make_key(up, owner) for owner in (ATTACKER, OTHER)]
    for owner in (ATTACKER, OTHER):
        assert up.call("POST", f"/v1/algorithms/{owner}", {"name": "Hello", **_HOSTED})[0] == 201
    installation = Installation(up, directory, *keys)
    installation.push_a_commit()
    for _ in range(20):  # each process of a service gets a few, and loads what it loads with the first ones
        installation.get()
        installation.health()
    installation.ls_remote()
    return installation


@contextmanager
def full_force(installation: Installation, force: Force) -> Iterator[list[SlowNetwork]]:
    """Let the attacker do everything at once during the block."""
    url, key, path = installation.up.url, installation.attacker_key, f"{ATTACKER}/Hello"
    with ExitStack() as stack:
        host, _ = stack.enter_context(silent_server())
        compiles = [
            _compile_of(installation, f"Silent{n}", f"https://{host}/{n}.git") for n in range(force.silent_repositories)
        ]
        bodies = [
            (slow_body, slow_chunks)[number % 2](url, f"/v1/algorithms/{ATTACKER}", key=key, interval=DRIP_SECONDS)
            for number in range(force.slow_bodies)
        ]
        pushes = [
            (slow_push, slow_push, slow_fetch)[number % 3](url, path, key, interval=DRIP_SECONDS)
            for number in range(force.slow_pushes)
        ]
        for number in range(force.broken_pushes):
            (broken_push, broken_chunked_push)[number % 2](url, path, key, reset=number % 4 > 1)
        yield [
            stack.enter_context(slow_network(url, clients, persistent=True)) for clients in (compiles, bodies, pushes)
        ]


@dataclass(frozen=True)
class Delays:
    """Durations in seconds of requests of the other owner and for health."""

    get: list[float]
    ls_remote: list[float]
    health: list[float]

    @property
    def median(self) -> tuple[float, float, float]:
        return statistics.median(self.get), statistics.median(self.ls_remote), statistics.median(self.health)


def measure(installation: Installation, rounds: int) -> Delays:
    """Send the requests that must not be delayed, one after the other."""
    delays = Delays([], [], [])
    for _ in range(rounds):
        delays.get.append(installation.get())
        delays.ls_remote.append(installation.ls_remote())
        delays.health.append(installation.health())
    return delays


def growth(before: dict[int, int], after: dict[int, int]) -> dict[str, int]:
    """Return the bytes by which each process that is still there has grown, by its command line."""
    return {f"{command_of(pid)} ({pid})": after[pid] - size for pid, size in before.items() if pid in after}


def _make_key(up: Up, owner: str) -> str:
    body = {"key_label": "test", "key_type": "AlgorithmKey"}
    status, made = up.call("POST", f"/v1/admin/users/{owner}/keys", body)
    assert status < 300, made
    return str(made["api_key"])


def _compile_of(installation: Installation, name: str, repository: str) -> SlowClient:
    """Create an algorithm whose source is in this repository; return a client that compiles it."""
    body = {"name": name, **_HOSTED, "source": {"repository_https_url": repository}}
    status, made = installation.up.call("POST", f"/v1/algorithms/{ATTACKER}", body)
    assert status == 201, made
    path = f"/v1/algorithms/{ATTACKER}/{name}/compile"
    headers = {"Content-Type": "application/json", "Content-Length": 2}
    head = request_head("POST", installation.up.url, path, key=installation.attacker_key, headers=headers)
    return SlowClient(head + b"{}", b"", DRIP_SECONDS)


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
