"""Run Longshore, and use it as its users do: over HTTP and git."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.services.processes import Child, free_port, running

CA_BUNDLES = (os.environ.get("SSL_CERT_FILE", ""), "/etc/ssl/certs/ca-certificates.crt")
WAIT_SECONDS = 60


@dataclass
class HttpResponse:
    """A response of the HTTP API."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> tuple[int, int, str]:
        """The status, the platform's error code and the message."""
        return self.status, self.json["error"]["code"], self.json["error"]["message"]


@dataclass
class System:
    """A running `longshore up`."""

    url: str
    data_dir: Path
    log: Path
    environment: dict[str, str]
    admin_key: str = field(repr=False, default="")

    def call(
        self, method: str, path: str, body: object = None, *, key: str | None = None, wait: int | None = None
    ) -> HttpResponse:
        """Send one request; with `wait`, wait so many seconds for its job."""
        data = None if body is None else json.dumps(body).encode()
        return self.send(method, path, data, key=key, wait=wait)

    def send(
        self,
        method: str,
        path: str,
        data: bytes | None,
        *,
        content_type: str = "application/json",
        key: str | None = None,
        wait: int | None = None,
    ) -> HttpResponse:
        """Send one request with a body of any type."""
        headers = {"Authorization": f"Simple {key or self.admin_key}"}
        if wait is not None:
            headers["Prefer"] = f"wait={wait}"
        if data is not None:
            headers["Content-Type"] = content_type
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return HttpResponse(response.status, dict(response.headers), response.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return HttpResponse(error.code, dict(error.headers), error.read().decode())

    def owner_key(self, owner: str) -> str:
        """Return a new AlgorithmKey of an owner, who is created if there is none."""
        made = self.call("POST", f"/v1/admin/users/{owner}/keys", {"key_label": "test", "key_type": "AlgorithmKey"})
        return str(made.json["api_key"])

    def record_registry(self, registry_url: str, username: str = "", password: str = "") -> str:
        """Record a registry; return its id."""
        body = {"registry_url": registry_url}
        if username:
            body |= {"registry_username": username, "registry_password": password}
        return str(self.call("POST", "/v1/registries", body).json["id"])

    def create_algorithm(self, owner: str, name: str) -> None:
        """Create an algorithm that Longshore hosts."""
        body = {"name": name, "details": {"label": name}, "settings": {"language": "python3"}}
        made = self.call("POST", f"/v1/algorithms/{owner}", body)
        assert made.status == 201, made.text

    def wait_for_job(self, job_id: str) -> dict[str, Any]:
        """Poll a job until it and its children have ended; return it."""
        deadline = time.monotonic() + 120
        while True:
            job: dict[str, Any] = self.call("GET", f"/v1/jobs/{job_id}").json
            live = [each for each in [job, *job["children"]] if each["state"] in ("queued", "running")]
            if not live or time.monotonic() > deadline:
                return job
            time.sleep(0.2)

    def compile(self, algorithm: str, commit: str | None = None, pushes: object = None) -> HttpResponse:
        """Compile a commit, and wait until it is built and pushed."""
        body: dict[str, Any] = {"commitSha": commit} if commit else {}
        if pushes is not None:
            body["registry_push_credentials"] = pushes
        answer = self.call("POST", f"/v1/algorithms/{algorithm}/compile", body, wait=WAIT_SECONDS)
        assert answer.status == 200, answer.text
        job = self.wait_for_job(answer.headers["X-Job-Id"])
        assert job["state"] in ("succeeded", "failed"), job
        return answer

    def statuses(self, algorithm: str, commit: str) -> list[dict[str, Any]]:
        """Return the push statuses of a version."""
        listed: list[dict[str, Any]] = self.call("GET", f"/v1/algorithms/{algorithm}/versions/{commit}/registry").json
        return listed


@dataclass
class Repository:
    """A clone of an algorithm's hosted repository."""

    directory: Path
    remote: str

    def write(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def commit(self, message: str = "change") -> str:
        """Commit everything; return the hash."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def push(self, *options: str) -> str:
        """Push the branch; without options, the push does not compile."""
        return self.git("push", "--quiet", *(options or ("--push-option=nocompile",)), self.remote, "HEAD:main")

    def git(self, *arguments: str) -> str:
        environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0"}
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def repository(system: System, directory: Path, algorithm: str, key: str) -> Repository:
    """Return an empty clone whose remote is the algorithm's repository."""
    directory.mkdir(parents=True)
    remote = f"{system.url.replace('://', f'://key:{key}@')}/git/{algorithm}.git"
    made = Repository(directory, remote)
    made.git("init", "--quiet", "--initial-branch=main")
    return made


ECHO = """\
from Algorithmia import ADK


def apply(given):
    return {"echo": given}


ADK(apply).init("test")
"""


@contextmanager
def longshore_up(directory: Path, **variables: str) -> Iterator[System]:
    """Run `longshore up` during the block."""
    port = free_port()
    bundle = next((path for path in CA_BUNDLES if path and Path(path).is_file()), "")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LONGSHORE_")}
    environment = inherited | {
        "LONGSHORE_DATA_DIR": str(directory / "data"),
        "LONGSHORE_PORT": str(port),
        "LONGSHORE_BUILD_NETWORK": "host",
        "LONGSHORE_SOURCE_NETWORKS": "0.0.0.0/0,::/0",  # some repositories are on this machine
        "LONGSHORE_BUILD_CA_BUNDLE": bundle,
        "LONGSHORE_BUILD_INDEX_URL": os.environ.get("PIP_INDEX_URL", ""),
        "LONGSHORE_LOG_LEVEL": "debug",
        **variables,
    }
    system = System(f"http://127.0.0.1:{port}", directory / "data", directory / "longshore.log", environment)
    with longshore(system, "up", ready=lambda: is_ready(system)):
        system.admin_key = (system.data_dir / "admin-key").read_text().strip()
        yield system


@contextmanager
def longshore(system: System, *arguments: str, ready: Any) -> Iterator[Child]:
    """Run another `longshore` command of the same system during the block."""
    log = system.log if arguments == ("up",) else system.log.with_name(f"{arguments[0]}.log")
    with running(
        f"longshore {arguments[0]}",
        [sys.executable, "-m", "cli.main", *arguments],
        log=log,
        ready=ready,
        seconds=60,
        grace=40,
        environment=system.environment,
    ) as child:
        yield child


def is_ready(system: System) -> bool:
    """Return whether the whole system is ready."""
    try:
        return system.call("GET", "/readyz").status == 200
    except OSError:
        return False
