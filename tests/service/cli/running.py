"""`longshore` commands as processes of their own, and what they leave behind."""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.services.processes import Child, free_port, running

SECONDS = 120
LONGSHORE = (sys.executable, "-P", "-m", "cli.main")


@dataclass
class Up:
    """One `longshore up`."""

    child: Child
    url: str
    data_dir: Path
    redis_directory: str
    """Where its own Redis has its socket; empty where it has none."""

    @property
    def admin_key(self) -> str:
        """What the file says."""
        return (self.data_dir / "admin-key").read_text().strip()

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One request with the admin key: status and document."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Simple {self.admin_key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def processes(self) -> dict[int, list[str]]:
        """Its processes, with their command lines."""
        return processes_of(self.data_dir, self.redis_directory)


@contextmanager
def longshore_up(directory: Path, **variables: str) -> Iterator[Up]:
    """A `longshore up` that is ready, for the length of the block."""
    port, data_dir = free_port(), directory / "data"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LONGSHORE_", "DOCKER_"))},
        "DOCKER_HOST": f"unix://{directory}/no-engine.sock",
        "LONGSHORE_SHUTDOWN_SECONDS": "5",
        "LONGSHORE_SOURCE_NETWORKS": "0.0.0.0/0,::/0",  # some repositories are on this machine
        **variables,
    }
    command = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), *LONGSHORE, "up"]
    url = f"http://127.0.0.1:{port}"
    log = directory / "longshore.log"
    log.unlink(missing_ok=True)
    with running(
        "longshore up",
        [*command, "--data-dir", str(data_dir), "--port", str(port)],
        log=log,
        ready=lambda: "Longshore is ready" in log.read_text() and answers(f"{url}/readyz"),
        seconds=SECONDS,
        grace=SECONDS,
    ) as child:
        note = data_dir / "redis-directory"
        yield Up(child, url, data_dir, note.read_text().strip() if note.exists() else "")


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False


def processes_of(data_dir: Path, redis_directory: str = "") -> dict[int, list[str]]:
    """The processes that were started for a data directory, with their command lines.

    Redis writes its title over its environment, so it is known by its socket.
    """
    marker = f"LONGSHORE_DATA_DIR={data_dir}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_text().rstrip("\0 ")
            is_redis = bool(redis_directory) and redis_directory in command
            if is_redis or marker in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = command.split("\0")
        except OSError:
            continue  # it ended at this moment
    return {pid: command for pid, command in found.items() if command != [""]}


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}"
        time.sleep(0.1)


def kill(pid: int) -> None:
    """As the kernel does when memory runs out."""
    os.kill(pid, signal.SIGKILL)


@contextmanager
def longshore(
    *arguments: str, log: Path, ready: Callable[[], bool], variables: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """One of the parts, for the length of the block."""
    with running(
        f"longshore {arguments[0]}",
        [*LONGSHORE, *arguments],
        log=log,
        ready=ready,
        seconds=SECONDS,
        grace=SECONDS,
        environment=variables,
    ) as child:
        try:
            yield child
        except BaseException:
            print(child.last_lines(50))  # pytest shows it with the failure
            raise
