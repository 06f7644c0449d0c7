"""Check what must hold after all faults. Each check yields one sentence per violation."""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import redis
import requests
from sqlalchemy import String, cast, func, select

from shared.db.clock import now_ms
from shared.db.models import (
    Algorithm,
    Base,
    Build,
    IdempotencyKey,
    ImagePush,
    Job,
    JobKind,
    JobState,
    PushEvent,
    PushState,
)
from shared.db.models.jobs import LIVE_STATES
from tests.chaos import attacks
from tests.chaos.callers import Callers
from tests.chaos.scenario import Scenario
from tests.processes import command_of

TIMEOUT_SECONDS = 30
INSTANCES_TIMEOUT_SECONDS = 60
MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


def violations(scenario: Scenario, callers: Callers, before: "Engine") -> list[str]:
    """Return all violations."""
    checks: tuple[Callable[[], Iterator[str]], ...] = (
        lambda: _calls_were_taken_once(scenario, callers),
        lambda: _everything_has_an_end(scenario),
        lambda: _registries_serve_what_rows_say(scenario),
        lambda: _successes_were_confirmed(scenario),
        lambda: _newest_push_has_the_row(scenario),
        lambda: _no_password_anywhere(scenario),
        lambda: _nothing_left_behind(scenario, before),
    )
    return [found for check in checks for found in check()]


def _calls_were_taken_once(scenario: Scenario, callers: Callers) -> Iterator[str]:
    known: set[str] = set()
    for outcome in callers.outcomes:
        what = f"call {outcome.call.number} ({outcome.call.kind}, {outcome.call.key})"
        if outcome.violation:
            yield f"{what}: {outcome.violation}"
        elif len(outcome.job_ids) != 1:
            yield f"{what} was accepted and names {len(outcome.job_ids)} jobs: {sorted(outcome.job_ids)}"
        known |= outcome.job_ids
    with scenario.system.database.reading() as session:
        jobs = set(session.scalars(select(Job.id)))
        remembered = session.execute(select(IdempotencyKey.job_id, func.count()).group_by(IdempotencyKey.job_id)).all()
        # A job without a parent was requested by a call or by a probe.
        by_call = set(session.scalars(select(Job.id).where(Job.owner == "chaos", Job.parent_id.is_(None))))
        with_key = {job_id for job_id, _ in remembered}
    for job_id in sorted(known - jobs):
        yield f"the job {job_id} was accepted but is not in the database"
    for job_id in sorted((by_call & with_key) - known):
        yield f"the job {job_id} was created by a call whose response did not name it"


def _everything_has_an_end(scenario: Scenario) -> Iterator[str]:
    with scenario.system.database.reading() as session:
        for job in session.scalars(select(Job).where(Job.state.in_(LIVE_STATES))):
            lease = "" if job.lease_expires_at is None else f", its lease ends at {job.lease_expires_at}"
            yield (
                f"the {job.kind} job {job.id} is {job.state} (tries {job.tries}, losses {job.losses}, "
                f"claim {job.claim}, dispatched at {job.dispatched_at}, due at {job.next_attempt_at}{lease}): "
                f"{job.error_message}"
            )
        for job in session.scalars(select(Job).where(Job.state.not_in(LIVE_STATES))):
            if job.lease_owner is not None:
                yield f"the {job.kind} job {job.id} is {job.state} and still held by {job.lease_owner}"
            if job.finished_at is None:
                yield f"the {job.kind} job {job.id} is {job.state} and has no time of its end"
            if job.credentials is not None:
                yield f"the {job.kind} job {job.id} is {job.state} and still has its credentials"
        unended = (PushState.QUEUED, PushState.IN_PROGRESS, PushState.STALLED)
        dead = select(ImagePush, Job).join(Job, Job.id == ImagePush.job_id).where(ImagePush.state.in_(unended))
        alive = (Job.state == JobState.RUNNING) & (Job.lease_expires_at >= now_ms())
        for push, job in session.execute(dead.where(~alive | Job.lease_expires_at.is_(None))):
            yield f"the push row {push.id} is {push.state} while its job {job.id} is {job.state}: {push.message}"


def _registries_serve_what_rows_say(scenario: Scenario) -> Iterator[str]:
    by_registry = {row.registry_id: row for row in [*scenario.rows, scenario.probe_row]}
    with scenario.system.database.reading() as session:
        found = session.execute(
            select(ImagePush, Job).join(Job, Job.id == ImagePush.job_id).where(ImagePush.state == PushState.SUCCEEDED)
        ).all()
    if not found:
        yield "no push succeeded at all"
    for push, job in found:
        row = by_registry[push.registry_id]
        repository = push.image.removeprefix(f"{row.url}/").rpartition(":")[0]
        for tag in filter(None, (job.git_hash, job.semantic_version)):
            served = _served_digest(row.direct, repository, tag, (row.username, row.password))
            if served != push.digest:
                yield f"the row of {push.image} says {push.digest}, but the registry serves {served} as {tag}"


def _served_digest(direct: str, repository: str, tag: str, account: tuple[str, str]) -> str:
    """Return the digest of a tag from the registry itself, past the proxy."""
    host, _, path = direct.partition("/")
    url = f"http://{host}/v2/{path}/{repository}/manifests/{tag}"
    headers = {"Accept": MANIFESTS}
    response = requests.head(url, headers=headers, auth=account, timeout=TIMEOUT_SECONDS)
    challenge = response.headers.get("WWW-Authenticate", "")
    if response.status_code == 401 and challenge.startswith("Bearer "):
        parameters = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = parameters.pop("realm")
        token = requests.get(realm, params=parameters, auth=account, timeout=TIMEOUT_SECONDS).json()["token"]
        headers["Authorization"] = f"Bearer {token}"
        response = requests.head(url, headers=headers, timeout=TIMEOUT_SECONDS)
    return response.headers.get("Docker-Content-Digest", f"nothing ({response.status_code})")


def _successes_were_confirmed(scenario: Scenario) -> Iterator[str]:
    """A succeeded push has its digest in the history; a succeeded compile has its image."""
    with scenario.system.database.reading() as session:
        confirmed = {
            (event.job_id, event.generation)
            for event in session.scalars(select(PushEvent).where(PushEvent.kind == "ended"))
            if event.state == PushState.SUCCEEDED and event.digest
        }
        done = session.scalars(select(Job).where(Job.kind == JobKind.PUSH, Job.state == JobState.SUCCEEDED))
        for job in done:
            if (job.id, job.generation) not in confirmed:
                yield f"the push job {job.id} succeeded without a digest that the registry confirmed"
        built = select(Job, Build).join(Build, Build.job_id == Job.id).where(Job.state == JobState.SUCCEEDED)
        for job, build in session.execute(built):
            if build.image_id is None:
                yield f"the compile job {job.id} succeeded without an image"


def _newest_push_has_the_row(scenario: Scenario) -> Iterator[str]:
    with scenario.system.database.reading() as session:
        rows = {push.id: push for push in session.scalars(select(ImagePush))}
        by_row: dict[str, list[Job]] = defaultdict(list)
        for job in session.scalars(select(Job).where(Job.kind == JobKind.PUSH).order_by(Job.seq)):
            by_row[job.push_id or ""].append(job)
    for push_id, jobs in by_row.items():
        push, newest = rows[push_id], jobs[-1]
        if (push.job_id, push.generation) != (newest.id, newest.generation):
            yield f"the row of {push.image} belongs to {push.job_id}, but the newest push is {newest.id}"
        if [job.generation for job in jobs] != sorted({job.generation for job in jobs}):
            yield f"two pushes of {push.image} have one generation"
        if (push.state == PushState.SUCCEEDED) != (newest.state == JobState.SUCCEEDED):
            yield f"the row of {push.image} is {push.state}, but its newest push {newest.id} is {newest.state}"
        good = [job.seq for job in jobs if job.state == JobState.SUCCEEDED]
        if push.last_success_seq != max(good, default=None):
            yield (
                f"the last good push of {push.image} is number {push.last_success_seq} by its row, and "
                f"{max(good, default=None)} by its jobs"
            )


def _no_password_anywhere(scenario: Scenario) -> Iterator[str]:
    places = {
        **_texts_of_database(scenario),
        "Redis": _kept_in_redis(scenario),
        "responses": "\n".join(scenario.system.admin.responses).encode(),
        **{f"the log {log.name}": log.read_bytes() for log in _log_files(scenario.system.directory)},
    }
    disclosed = {f"{who}'s key": "responses" for who in ("caller", "prober", "attacker")}  # when they were created
    for what, secret in scenario.secrets.items():
        for place, content in places.items():
            if secret.encode() in content and disclosed.get(what) != place:
                yield f"the {what} stands in clear in: {place}"


def _texts_of_database(scenario: Scenario) -> dict[str, bytes]:
    texts = {}
    with scenario.system.database.reading() as session:
        for table in Base.metadata.sorted_tables:
            rows = session.execute(select(*(cast(column, String) for column in table.columns))).all()
            texts[f"the table {table.name}"] = repr([tuple(row) for row in rows]).encode()
    return texts


def _kept_in_redis(scenario: Scenario) -> bytes:
    with redis.Redis(port=scenario.system.redis.service.port) as client:
        return b"".join(client.dump(key) or b"" for key in client.scan_iter())


def _log_files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*.log") if path.is_file() and "storage" not in path.parts]


class Engine:
    """The containers and dangling images on the engine."""

    def __init__(self, docker_host: str) -> None:
        client = docker.DockerClient(base_url=docker_host, timeout=TIMEOUT_SECONDS)
        try:
            self.containers = {str(found.id): str(found.name) for found in client.containers.list(all=True)}
            self.dangling = {str(image.id) for image in client.images.list(filters={"dangling": True})}
        finally:
            client.close()


def _nothing_left_behind(scenario: Scenario, before: Engine) -> Iterator[str]:
    for left in sorted(scenario.system.scratch.glob("longshore-*")):
        yield f"{left.name} is left in the workers' temporary directory"
    now = _engine_without_instances(scenario, before)
    for container in sorted(now.containers.keys() - before.containers.keys()):
        yield f"the container {now.containers[container]} is left on the engine"
    with scenario.system.database.reading() as session:
        known = set(session.scalars(select(Build.image_id)))
        of_attacker = select(Algorithm.id).where(Algorithm.owner == attacks.OWNER)
        called = set(session.scalars(select(Build.image_id).where(Build.algorithm_id.in_(of_attacker))))
    for image in sorted(now.dangling - before.dangling - called):  # the images of instances stay
        used = " (a build knows it)" if image in known else ""
        yield f"the dangling image {image} is left on the engine{used}"
    for command in _git_processes(scenario):
        yield f"a process of git is left: {command}"


def _engine_without_instances(scenario: Scenario, before: Engine) -> Engine:
    """Wait until the instances that the hostile calls have started are stopped as idle."""
    deadline = time.monotonic() + INSTANCES_TIMEOUT_SECONDS
    while True:
        now = Engine(scenario.system.docker_host)
        if not now.containers.keys() - before.containers.keys() or time.monotonic() > deadline:
            return now
        time.sleep(1)


def _git_processes(scenario: Scenario) -> list[str]:
    """Return the command lines of processes of git that the git service still runs."""
    commands = [command_of(pid) for pid in scenario.system.processes["git"].child.family()]
    return [command for command in commands if Path(command.partition(" ")[0]).name.startswith("git")]
