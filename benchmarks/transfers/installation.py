"""A complete Longshore for the transfer cases: engine, registries, and algorithms with their own sources."""

import json
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.demo.build_settings import build_variables
from dev.services.engine import private_engine
from dev.services.processes import free_port, running
from dev.services.registry import PrivateRegistry, private_registry

OWNER = "bench"
READY_SECONDS = 60
JOB_SECONDS = 900
REQUIREMENTS = "numpy\nscipy\npandas\nscikit-learn\n"
SOURCE = """import numpy


def apply(input):
    return int(numpy.array(input).sum()) + {number}
"""


@dataclass
class Installation:
    """The addresses of the services, and the API calls of the cases."""

    directory: Path
    url: str
    docker_host: str
    base_image: str
    build_variables: Mapping[str, str]
    key: str
    stack: ExitStack
    _registries: int = field(default=0)

    def call(self, method: str, path: str, body: object = None) -> tuple[Any, dict[str, str]]:
        """Call the API; return the response's document and headers."""
        request = urllib.request.Request(  # noqa: S310 - our own server's address
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Simple {self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=JOB_SECONDS) as answer:  # noqa: S310
            content = answer.read()
            return json.loads(content) if content else None, {k.lower(): v for k, v in answer.getheaders()}

    def until_done(self, headers: Mapping[str, str]) -> None:
        """Wait until the job of a call and its children have succeeded; the short poll interval adds little time."""
        deadline = time.monotonic() + JOB_SECONDS
        while time.monotonic() < deadline:
            job, _ = self.call("GET", f"/v1/jobs/{headers['x-job-id']}")
            jobs = [job, *job.get("children", [])]
            if all(each["state"] == "succeeded" for each in jobs):
                return
            failed = [each for each in jobs if each["state"] not in {"queued", "running", "succeeded"}]
            if failed:
                raise RuntimeError(f"a {failed[0]['kind']} did not succeed: {failed[0].get('error')}")
            time.sleep(0.005)
        raise RuntimeError("a job did not end")

    def new_registry(self) -> tuple[str, PrivateRegistry]:
        """Start and record an empty registry; return its id and addresses."""
        self._registries += 1
        place = self.directory / f"registry-{self._registries}"
        registry = self.stack.enter_context(private_registry(place))
        return self.record(registry.url, registry), registry

    def record(self, url: str, registry: PrivateRegistry) -> str:
        """Record a registry with a URL; return its id."""
        ((name, password),) = registry.users.items()
        body = {"registry_url": url, "registry_username": name, "registry_password": password}
        made, _ = self.call("POST", "/v1/registries", body)
        return str(made["id"])

    def new_algorithm(self, requirements: str = REQUIREMENTS, source: str = SOURCE) -> "Algorithm":
        """Create a hosted algorithm with a commit that was not compiled."""
        name = f"A{uuid.uuid4().hex[:10]}"
        settings = {"language": "python3", "network_access": "isolated"}
        self.call("POST", f"/v1/algorithms/{OWNER}", {"name": name, "details": {"label": name}, "settings": settings})
        algorithm = Algorithm(self, name, self.directory / "sources" / name, requirements, source)
        algorithm.begin()
        return algorithm


@dataclass
class Algorithm:
    """An algorithm and its git repository."""

    installation: Installation
    name: str
    tree: Path
    requirements: str
    source: str
    _commits: int = 0

    @property
    def path(self) -> str:
        """Its path in the API."""
        return f"/v1/algorithms/{OWNER}/{self.name}"

    def begin(self) -> None:
        (self.tree / "src").mkdir(parents=True)
        (self.tree / "requirements.txt").write_text(self.requirements)
        self._git("init", "--quiet", "--initial-branch=main")
        host = self.installation.url.removeprefix("http://")
        self._git("remote", "add", "origin", f"http://bench:{self.installation.key}@{host}/git/{OWNER}/{self.name}.git")

    def commit(self) -> str:
        """Commit and push a changed source, without a build."""
        self._commits += 1
        (self.tree / "src" / f"{self.name}.py").write_text(self.source.format(number=self._commits))
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", f"change {self._commits}")
        self._git("push", "--quiet", "--push-option=nocompile", "origin", "main")
        return self._git("rev-parse", "HEAD")

    def compile(self, commit: str, *registry_ids: str) -> dict[str, str]:
        """Request a compile and pushes of it; return the response's headers."""
        pushes = [{"registry_id": registry_id} for registry_id in registry_ids]
        body = {"commitSha": commit, **({"registry_push_credentials": pushes} if pushes else {})}
        return self.installation.call("POST", f"{self.path}/compile", body)[1]

    def push(self, commit: str, registry_id: str) -> dict[str, str]:
        """Request a push; return the response's headers."""
        body = {"registry_id": registry_id}
        return self.installation.call("POST", f"{self.path}/versions/{commit}/registry", body)[1]

    def image(self, commit: str, registry: PrivateRegistry) -> str:
        """Return the image's reference in a registry."""
        return f"{registry.host}/{OWNER}/{self.name.lower()}:{commit}"

    def _git(self, *arguments: str) -> str:
        author = ["-c", "user.name=bench", "-c", "user.email=bench@example.com"]
        done = subprocess.run(
            ["git", *author, *arguments], cwd=self.tree, check=True, capture_output=True, text=True,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        )  # fmt: skip
        return done.stdout.strip()


@contextmanager
def installation(directory: Path, *, concurrency: int) -> Iterator[Installation]:
    """Run a private engine and `longshore up` with this worker concurrency during the block."""
    with ExitStack() as stack:
        docker_host = stack.enter_context(private_engine(directory / "engine"))
        variables = build_variables(docker_host)
        port = free_port()
        url, log = f"http://127.0.0.1:{port}", directory / "longshore.log"
        environment = {
            "DOCKER_HOST": docker_host,
            "LONGSHORE_WORKER_CONCURRENCY": str(concurrency),
            "LONGSHORE_API_PORT": str(free_port()),
            "LONGSHORE_GIT_PORT": str(free_port()),
            **variables,
        }
        data = directory / "longshore"
        stack.enter_context(
            running(
                "longshore",
                [str(Path(sys.executable).with_name("longshore")), "up", "--data-dir", str(data), "--port", str(port)],
                log=log,
                ready=lambda: f"Longshore is ready at {url}" in log.read_text(errors="replace"),
                seconds=READY_SECONDS,
                grace=30,
                environment=environment,
            )
        )
        key = (data / "admin-key").read_text().strip()
        made = Installation(directory, url, docker_host, variables["LONGSHORE_BASE_IMAGE"], variables, key, stack)
        made.call("POST", f"/v1/admin/users/{OWNER}/keys", {"key_label": "bench", "key_type": "AlgorithmKey"})
        yield made
