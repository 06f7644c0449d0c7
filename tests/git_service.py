"""A git service that really runs, and a git client with repositories to push to it."""

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.runtime import migrate
from dev.services.processes import free_port
from shared.db.engine import database
from shared.db.models import Algorithm, KeyKind
from shared.keys import create_key, create_owner
from shared.registry.reference import normalize_name
from tests.environment import longshore_environment
from tests.service.cli.running import answers, longshore


@dataclass
class GitService:
    """The URL of a git service, its directory and its first process."""

    url: str
    directory: Path
    pid: int

    @property
    def log(self) -> str:
        return (self.directory / "service.log").read_text()

    def processes(self) -> list[Path]:
        """Return the directories in /proc of the processes that work in its repositories, hooks among them."""
        working = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            if b"GIT_PROJECT_ROOT=" + str(self.directory).encode() in environment:
                working.append(process)
        return working


@contextmanager
def git_service(directory: Path, **variables: Any) -> Iterator[GitService]:
    """A `longshore git` under gunicorn, as in production, with settings of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with longshore_environment(directory / "data", git_url=url, **variables):
            command = [sys.executable, "-m", "gunicorn", "--bind", f"fd://{listener.fileno()}", "--workers", "2"]
            command += [
                "--worker-class",
                "gthread",
                "--threads",
                "4",
                "--log-level",
                "warning",
                "api.git.app:create_app()",
            ]
            with (directory / "service.log").open("wb") as log:
                process = subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=log, stderr=log)
            try:
                yield GitService(url, directory, process.pid)
            finally:
                process.terminate()
                process.wait(20)


@contextmanager
def longshore_git(directory: Path, **variables: Any) -> Iterator[GitService]:
    """The process `longshore git` itself, as it runs in an installation, with settings of its own."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with longshore_environment(directory / "data", tables=False, git_url=url, git_port=port, **variables):
        migrate(database())
        log = directory / "service.log"
        with longshore("git", log=log, ready=lambda: answers(f"{url}/readyz")) as child:
            yield GitService(url, directory, child.pid)


def make_algorithm(owner: str = "", name: str = "Hello", **columns: object) -> Algorithm:
    """An algorithm of a new owner, unless one is named."""
    owner = owner or f"owner{uuid.uuid4().hex[:8]}"
    with database().writing() as session:
        create_owner(session, owner)
        algorithm = Algorithm(
            owner=owner, name=name, image_path=f"{normalize_name(owner)}/{normalize_name(name)}", **columns
        )
        session.add(algorithm)
    return algorithm


def make_key(owner: str, kind: KeyKind = KeyKind.ALGORITHM, **permissions: object) -> str:
    """The secret of a new key."""
    with database().writing() as session:
        return create_key(session, owner, label="test", kind=kind, permissions=permissions or None)[1]


class WorkTree:
    """A repository of a user, with git as users have it."""

    def __init__(
        self, directory: Path, branch: str = "main", *, clone_of: str | None = None, options: tuple[str, ...] = ()
    ) -> None:
        """Make an empty repository, or a clone of a URL; `options` are those of git for cloning."""
        self.path = directory
        directory.mkdir(parents=True)
        if clone_of is None:
            self.git("init", "--quiet", f"--initial-branch={branch}")
        else:
            self.git(*options, "clone", "--quiet", clone_of, ".")

    def git(self, *args: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run git; what it printed is in stdout and stderr."""
        return subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *args],
            cwd=self.path,
            check=check,
            capture_output=True,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.path),
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_AUTHOR_NAME": "A",
                "GIT_AUTHOR_EMAIL": "a@example.org",
                "GIT_COMMITTER_NAME": "A",
                "GIT_COMMITTER_EMAIL": "a@example.org",
                "LC_ALL": "C",
            },
        )

    def write(self, name: str, content: str | bytes = "x\n") -> None:
        """Write a file into the work tree."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, message: str = "change") -> str:
        """Commit everything; the full hash."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.head

    @property
    def head(self) -> str:
        """The hash of the newest commit."""
        return self.git("rev-parse", "HEAD").stdout.strip()

    def push(self, url: str, *refs: str, options: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
        """Push branches (main) to a URL. The caller checks the exit status."""
        flags = [f"--push-option={option}" for option in options]
        return self.git("push", "--quiet", *flags, url, *(refs or ("main",)), check=False)


def url_with_key(service: GitService, algorithm: Algorithm, key: str) -> str:
    """A clone URL with the key as the password."""
    return f"{service.url.replace('://', f'://anyone:{key}@')}/git/{algorithm.path}.git"
