"""Prepare what calls use: an algorithm with its commits, registries, and the secrets that checks search for."""

import base64
import random
import secrets
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.services.processes import ServiceFailedError, say
from tests.chaos import attacks
from tests.chaos.api import Api
from tests.chaos.attacks import Attacker
from tests.chaos.plan import Call, CallKind, Plan
from tests.chaos.system import System

OWNER, ALGORITHM = "chaos", "Storm"
PROBER, PROBE = "prober", "Probe"
SOURCE_BYTES = 1_500_000
READY_TIMEOUT_SECONDS = 180
POLL_INTERVAL_SECONDS = 0.2


@dataclass(frozen=True)
class RegistryRow:
    """A recorded registry, with a path and the account that may push there."""

    registry_id: str
    url: str
    username: str
    password: str = field(repr=False)
    direct: str
    """The address (host:port/path) of the registry itself, without the proxy."""


@dataclass
class Scenario:
    """The algorithms, registries and keys that calls use."""

    system: System
    caller: Api
    prober: Api
    rows: list[RegistryRow]
    probe_row: RegistryRow
    commits: list[str]
    probe_commit: str
    attacker: Attacker
    wrong_password: str = field(default_factory=lambda: f"pw-wrong-{secrets.token_hex(12)}", repr=False)

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets that must not appear in clear text, by description."""
        secrets_by_name = {
            "wrong password": self.wrong_password,
            "caller's key": self.caller.key,
            "prober's key": self.prober.key,
            "attacker's key": self.attacker.api.key,
            "admin key": self.system.admin.key,
        }
        for row in [*self.rows, self.probe_row]:
            secrets_by_name[f"password of {row.username}"] = row.password
            pair = base64.b64encode(f"{row.username}:{row.password}".encode()).decode()
            secrets_by_name[f"password of {row.username}, encoded"] = pair
        return secrets_by_name

    def request(self, call: Call) -> tuple[str, dict[str, Any]]:
        """Return the path and body of a call."""
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


def prepare_scenario(system: System, plan: Plan) -> Scenario:
    """Create owners, registries and repositories, and do the builds and pushes that the plan needs.

    Raises:
        ServiceFailedError: something fails without any fault.
    """
    caller, prober = (system.admin.other(_key(system, owner)) for owner in (OWNER, PROBER))
    with_passwords, with_tokens = system.proxies
    pusher, writer = (next(iter(registry.users.items())) for registry in (system.passwords.service, system.tokens))
    direct, direct_tokens = system.passwords.service.host, system.tokens.host
    rows = [
        _record_registry(system, with_passwords.host, "one", pusher, direct),
        _record_registry(system, with_passwords.host, "two", pusher, direct),
        _record_registry(system, with_tokens.host, "three", writer, direct_tokens),
    ][: plan.registries]
    probe_row = _record_registry(system, with_passwords.host, "probe", pusher, direct)
    commits = _commits(system, caller, OWNER, ALGORITHM, plan.commits, random.Random(plan.seed))  # noqa: S311
    (probe_commit,) = _commits(system, prober, PROBER, PROBE, 1, random.Random(0))  # noqa: S311
    attacker = _attacker(system)
    scenario = Scenario(system, caller, prober, rows, probe_row, commits, probe_commit, attacker)
    say("building and pushing before the first fault")
    jobs = []
    for number, commit in enumerate(commits[: plan.built]):
        pushes = [{"registry_id": row.registry_id} for row in rows] if number == 0 else []
        jobs.append(_compile(caller, f"{OWNER}/{ALGORITHM}", commit, pushes))
    jobs.append(_compile(prober, f"{PROBER}/{PROBE}", probe_commit, [{"registry_id": probe_row.registry_id}]))
    jobs.append(_compile(attacker.api, f"{attacks.OWNER}/{attacks.ALGORITHM}", attacker.commits[attacks.CALLABLE], []))
    for job in jobs:
        _wait_for_success(system.admin, job)
    return scenario


def _expect_success(api: Api, method: str, path: str, body: object) -> Any:
    response = api.send(method, path, body)
    if not response.accepted:
        raise ServiceFailedError(f"{method} {path} got response {response.status} before any fault: {response.text}")
    return response.json


def _key(system: System, owner: str) -> str:
    body = {"key_label": "chaos", "key_type": "AlgorithmKey"}
    return str(_expect_success(system.admin, "POST", f"/v1/admin/users/{owner}/keys", body)["api_key"])


def _record_registry(system: System, host: str, path: str, account: tuple[str, str], direct: str) -> RegistryRow:
    username, password = account
    body = {
        "registry_url": f"http://{host}/{path}",
        "registry_username": username,
        "registry_password": password,
        "name": path,
    }
    made = _expect_success(system.admin, "POST", "/v1/registries", body)
    return RegistryRow(made["id"], f"{host}/{path}", username, password, f"{direct}/{path}")


def _commits(system: System, api: Api, owner: str, name: str, count: int, rng: random.Random) -> list[str]:
    """Create an algorithm and push `count` commits to its repository, each with other bytes; return their hashes."""
    source = "def apply(given):\n    return given\n"
    trees = ((("bytes", rng.randbytes(SOURCE_BYTES)), (f"src/{name}.py", source)) for _ in range(count))
    return _pushed(system, api, owner, name, (dict[str, str | bytes](tree) for tree in trees))


def _attacker(system: System) -> Attacker:
    api, trees = system.admin.other(_key(system, attacks.OWNER)), attacks.trees()
    commits = _pushed(system, api, attacks.OWNER, attacks.ALGORITHM, trees.values())
    return Attacker(api, dict(zip(trees, commits, strict=True)))


def _pushed(system: System, api: Api, owner: str, name: str, trees: Iterable[Mapping[str, str | bytes]]) -> list[str]:
    """Create an algorithm and push a commit of each tree to its repository; return their hashes."""
    body = {"name": name, "details": {"label": name}, "settings": {"language": "python3"}}
    _expect_success(api, "POST", f"/v1/algorithms/{owner}", body)
    directory = system.directory / "clones" / name
    directory.mkdir(parents=True)
    _git(directory, "init", "--quiet", "--initial-branch=main")
    commits = []
    for number, tree in enumerate(trees):
        for path, content in tree.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        _git(directory, "add", "--all")
        _git(directory, "commit", "--quiet", "--message", f"commit {number}")
        commits.append(_git(directory, "rev-parse", "HEAD"))
    remote = f"{system.url.replace('://', f'://key:{api.key}@')}/git/{owner}/{name}.git"
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
    response = api.send("POST", f"/v1/algorithms/{algorithm}/compile", body)
    if response.job_id is None:
        raise ServiceFailedError(f"a compile got response {response.status} before any fault: {response.text}")
    return response.job_id


def _wait_for_success(api: Api, job_id: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while True:
        job = _expect_success(api, "GET", f"/v1/jobs/{job_id}", None)
        states = {part["state"] for part in [job, *job["children"]]}
        if states == {"succeeded"}:
            return
        if states & {"failed", "cancelled", "superseded"} or time.monotonic() > deadline:
            raise ServiceFailedError(f"a job did not succeed before any fault: {job}")
        time.sleep(POLL_INTERVAL_SECONDS)
