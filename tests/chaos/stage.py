"""What the callers work with: an algorithm with its commits, registries, and the passwords to look for afterwards."""

import base64
import random
import secrets
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.services.processes import ServiceFailedError, say
from tests.chaos.api import Api
from tests.chaos.plan import Call, CallKind, Plan
from tests.chaos.system import System

OWNER, ALGORITHM = "chaos", "Storm"
PROBER, PROBE = "prober", "Probe"
SOURCE_BYTES = 1_500_000
READY_SECONDS = 180
POLL_INTERVAL_SECONDS = 0.2


@dataclass(frozen=True)
class Row:
    """A registry as it is recorded: the path in it, and who may push there."""

    registry_id: str
    url: str
    username: str
    password: str = field(repr=False)
    direct: str
    """Where the registry itself answers, without the proxy."""


@dataclass
class Stage:
    """Everything that a call can be about."""

    system: System
    caller: Api
    prober: Api
    rows: list[Row]
    probe_row: Row
    commits: list[str]
    probe_commit: str
    wrong_password: str = field(default_factory=lambda: f"pw-wrong-{secrets.token_hex(12)}", repr=False)

    @property
    def secrets(self) -> dict[str, str]:
        """What must stand nowhere in clear, by what it is."""
        found = {
            "wrong password": self.wrong_password,
            "caller's key": self.caller.key,
            "prober's key": self.prober.key,
            "admin key": self.system.admin.key,
        }
        for row in [*self.rows, self.probe_row]:
            found[f"password of {row.username}"] = row.password
            pair = base64.b64encode(f"{row.username}:{row.password}".encode()).decode()
            found[f"password of {row.username}, encoded"] = pair
        return found

    def request(self, call: Call) -> tuple[str, dict[str, Any]]:
        """The address and body of a call."""
        row, commit = self.rows[call.registry], self.commits[call.commit]
        push: dict[str, Any] = {"registry_id": row.registry_id}
        if call.kind == CallKind.PUSH_WITH_OWN:
            push |= {"registry_username": row.username, "registry_password": row.password}
        if call.kind == CallKind.PUSH_WITH_WRONG:
            push |= {"registry_username": row.username, "registry_password": self.wrong_password}
        algorithm = f"/v1/algorithms/{OWNER}/{ALGORITHM}"
        if call.kind in (CallKind.COMPILE, CallKind.REBUILD):
            force = "?force=true" if call.kind == CallKind.REBUILD else ""
            return f"{algorithm}/compile{force}", {"commitSha": commit, "registry_push_credentials": push}
        if call.kind == CallKind.PUBLISH:
            return f"{algorithm}/versions", {"commitSha": commit, "registry_push_credentials": push}
        return f"{algorithm}/versions/{commit}/registry", {"registry_push_credentials": push}


def set_stage(system: System, plan: Plan) -> Stage:
    """Make owners, registries and repositories, and build and push what the plan takes for granted.

    Raises:
        ServiceFailedError: it does not work even without faults.
    """
    caller, prober = (system.admin.other(_key(system, owner)) for owner in (OWNER, PROBER))
    with_passwords, with_tokens = system.proxies
    pusher, writer = (next(iter(registry.users.items())) for registry in (system.passwords.service, system.tokens))
    direct, direct_tokens = system.passwords.service.host, system.tokens.host
    rows = [
        _record(system, with_passwords.host, "one", pusher, direct),
        _record(system, with_passwords.host, "two", pusher, direct),
        _record(system, with_tokens.host, "three", writer, direct_tokens),
    ][: plan.registries]
    probe_row = _record(system, with_passwords.host, "probe", pusher, direct)
    commits = _commits(system, caller, OWNER, ALGORITHM, plan.commits, random.Random(plan.seed))  # noqa: S311
    (probe_commit,) = _commits(system, prober, PROBER, PROBE, 1, random.Random(0))  # noqa: S311
    stage = Stage(system, caller, prober, rows, probe_row, commits, probe_commit)
    say("building and pushing what there is before the first fault")
    jobs = []
    for number, commit in enumerate(commits[: plan.built]):
        pushes = [{"registry_id": row.registry_id} for row in rows] if number == 0 else []
        jobs.append(_compile(caller, f"{OWNER}/{ALGORITHM}", commit, pushes))
    jobs.append(_compile(prober, f"{PROBER}/{PROBE}", probe_commit, [{"registry_id": probe_row.registry_id}]))
    for job in jobs:
        _await_success(system.admin, job)
    return stage


def _must(api: Api, method: str, path: str, body: object) -> Any:
    answer = api.send(method, path, body)
    if not answer.accepted:
        raise ServiceFailedError(f"{method} {path} was answered {answer.status} before any fault: {answer.text}")
    return answer.json


def _key(system: System, owner: str) -> str:
    body = {"key_label": "chaos", "key_type": "AlgorithmKey"}
    return str(_must(system.admin, "POST", f"/v1/admin/users/{owner}/keys", body)["api_key"])


def _record(system: System, host: str, path: str, account: tuple[str, str], direct: str) -> Row:
    username, password = account
    body = {
        "registry_url": f"http://{host}/{path}",
        "registry_username": username,
        "registry_password": password,
        "name": path,
    }
    made = _must(system.admin, "POST", "/v1/registries", body)
    return Row(made["id"], f"{host}/{path}", username, password, f"{direct}/{path}")


def _commits(system: System, api: Api, owner: str, name: str, count: int, chance: random.Random) -> list[str]:
    """Create an algorithm and push so many commits to its repository, each with bytes of its own."""
    body = {"name": name, "details": {"label": name}, "settings": {"language": "python3"}}
    _must(api, "POST", f"/v1/algorithms/{owner}", body)
    directory = system.directory / "clones" / name
    (directory / "src").mkdir(parents=True)
    (directory / "src" / f"{name}.py").write_text("def apply(given):\n    return given\n")
    _git(directory, "init", "--quiet", "--initial-branch=main")
    commits = []
    for number in range(count):
        (directory / "bytes").write_bytes(chance.randbytes(SOURCE_BYTES))
        _git(directory, "add", "--all")
        _git(directory, "commit", "--quiet", "--message", f"commit {number}")
        commits.append(_git(directory, "rev-parse", "HEAD"))
    remote = f"{system.git_url.replace('://', f'://key:{api.key}@')}/git/{owner}/{name}.git"
    _git(directory, "push", "--quiet", "--push-option=nocompile", remote, "HEAD:main")
    return commits


def _git(directory: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Chaos", "-c", "user.email=chaos@example.org")
    done = subprocess.run(["git", *identity, *arguments], cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceFailedError(f"git {arguments[0]} failed: {done.stderr}")
    return done.stdout.strip()


def _compile(api: Api, algorithm: str, commit: str, pushes: list[dict[str, str]]) -> str:
    body = {"commitSha": commit, "registry_push_credentials": pushes}
    answer = api.send("POST", f"/v1/algorithms/{algorithm}/compile", body)
    if answer.job_id is None:
        raise ServiceFailedError(f"a compile was answered {answer.status} before any fault: {answer.text}")
    return answer.job_id


def _await_success(api: Api, job_id: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        job = _must(api, "GET", f"/v1/jobs/{job_id}", None)
        states = {part["state"] for part in [job, *job["children"]]}
        if states == {"succeeded"}:
            return
        if states & {"failed", "cancelled", "superseded"} or time.monotonic() > deadline:
            raise ServiceFailedError(f"a job did not succeed before any fault: {job}")
        time.sleep(POLL_INTERVAL_SECONDS)
