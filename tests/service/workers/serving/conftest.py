"""An algorithm's image on a real engine and in a real registry, with helpers to run and call it."""

import http.client
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient
from docker.errors import ImageNotFound
from sqlalchemy import select

import workers.runner
from dev.services.mounts import unmount_below
from dev.services.registry import PrivateRegistry
from shared.commands.serve import ensure_instance
from shared.db.engine import database
from shared.db.models import Algorithm, Build, Instance, Job, Registry, Version
from shared.instances.endpoints import connect, endpoint_of
from shared.instances.states import DesiredState
from shared.pulls.resolution import resolve_pull
from shared.registry.credentials import Credentials
from shared.settings import settings
from tests.git_service import make_algorithm
from tests.rows import build_commit, change, fresh, make_registry, one_row, push
from tests.unit.workers.builds.sources import archive_of
from tests.unit.workers.runner.running import PROTOCOL
from workers.jobs.executor import run_job
from workers.pushes.push import PushWork
from workers.runner import RUNS_AS
from workers.serving.backend import serving_backend
from workers.serving.reconcile import reconcile, stop_all
from workers.serving.start import ServeWork

PUSHER = Credentials("pusher", "secret")
PATIENCE = 60
SOURCE = f"""{PROTOCOL}
import subprocess

def apply(request):
    data = request["data"]
    return eval(data["eval"]) if isinstance(data, dict) else data

serve(apply)
"""
"""An algorithm that evaluates any expression, as a hostile one could do anything."""
DOCKERFILE = f"""FROM BASE
COPY runner {workers.runner.DIRECTORY}
COPY src {workers.runner.SOURCE_DIRECTORY}/src
ENV LONGSHORE_MODULE=Hello
WORKDIR {workers.runner.SOURCE_DIRECTORY}
USER {RUNS_AS}
ENTRYPOINT ["python3", "-I", "-S", "{workers.runner.DIRECTORY}"]
"""


@contextmanager
def image_of(docker_host: str, base_image: str, source: str, tag: str) -> Iterator[str]:
    """Yield the id of an algorithm's image, which is on the engine during the block."""
    files = {f"runner/{file.name}": file.read_bytes() for file in Path(workers.runner.__file__).parent.glob("*.py")}
    files |= {"Dockerfile": DOCKERFILE.replace("BASE", base_image).encode(), "src/Hello.py": source.encode()}
    client = APIClient(base_url=docker_host)
    events = [
        *client.build(fileobj=BytesIO(archive_of(files)), custom_context=True, tag=tag, decode=True, forcerm=True)
    ]
    assert not [event for event in events if "error" in event], events
    yield str(client.inspect_image(tag)["Id"])
    with suppress(ImageNotFound):
        client.remove_image(tag, force=True)
    client.close()


@pytest.fixture(scope="session")
def image_id(docker_host: str, base_image: str) -> Iterator[str]:
    """The id of the image on the engine."""
    with image_of(docker_host, base_image, SOURCE, "served") as made:
        yield made


@pytest.fixture
def build(
    sqlite_installation: str,  # noqa: ARG001 - comes first
    docker_host: str,
    image_id: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Build]:
    """A succeeded build of that image; its instances are stopped at the end."""
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    monkeypatch.setenv("LONGSHORE_TRANSPORT", "engine")
    monkeypatch.setenv("LONGSHORE_SERVING_NETWORK", "host")
    monkeypatch.setenv("LONGSHORE_SERVING_MEMORY_BYTES", str(128 * 1024 * 1024))
    monkeypatch.setenv("LONGSHORE_SERVING_PIDS", "48")
    monkeypatch.setenv("LONGSHORE_SERVING_TMP_BYTES", str(16 * 1024 * 1024))
    settings.cache_clear()
    serving_backend.cache_clear()
    made = build_commit(make_algorithm())
    change(made, image_id=image_id)
    yield fresh(made)
    stop_all()
    serving_backend().remove_orphans(set(), set().intersection)
    unmount_below(settings().resolved_serving_dir)  # what ended in this minute


@dataclass
class Served:
    """A version whose instances are started and called as `longshore calls` does."""

    build: Build

    @property
    def algorithm(self) -> Algorithm:
        return one_row(Algorithm, id=self.build.algorithm_id)

    @property
    def version(self) -> Version:
        return one_row(Version, id=self.build.version_id)

    def pushed_to(self, registry: PrivateRegistry) -> Registry:
        """Push the image; the push must succeed."""
        recorded = make_registry(registry.url, PUSHER)
        job = push(self.build, recorded)
        assert run_job(job.id, PushWork)
        return recorded

    def isolated(self) -> None:
        """Set the algorithm to run without network."""
        change(self.algorithm, settings={"network_access": "isolated"})

    def ensure_instance(self) -> Instance:
        """Return the instance that calls need now, which is created if there is none."""
        with database().writing() as session:
            algorithm, version = self.algorithm, self.version
            desired = DesiredState.of(algorithm, version, resolve_pull(session, algorithm, version))
            assert desired is not None
            return ensure_instance(session, desired)[0]

    def started(self) -> Instance:
        """The same, after a worker has run its job once."""
        instance = self.ensure_instance()
        run_job(instance.job_id, ServeWork)
        return fresh(instance)


@pytest.fixture
def served(build: Build) -> Served:
    return Served(build)


@pytest.fixture
def of(served: Served, docker_host: str) -> Iterator[Callable[..., str]]:
    """Derive an image from the good one by these Dockerfile lines, make it the version's, and return its id."""
    client, names = APIClient(base_url=docker_host), []

    def derive(*lines: str) -> str:
        name = f"hostile-{uuid.uuid4().hex[:12]}"
        dockerfile = "\n".join(["FROM served", *lines]).encode()
        context = BytesIO(archive_of({"Dockerfile": dockerfile}))
        events = [*client.build(fileobj=context, custom_context=True, tag=name, decode=True, forcerm=True)]
        assert not [event for event in events if "error" in event], events
        names.append(name)
        image_id = str(client.inspect_image(name)["Id"])
        change(served.build, image_id=image_id)
        served.build = fresh(served.build)
        return image_id

    yield derive
    for name in names:
        with suppress(ImageNotFound):
            client.remove_image(name, force=True)
    client.close()


def entry_point(program: str) -> str:
    return f"ENTRYPOINT {json.dumps(['python3', '-c', program])}"


def call(instance: Instance, given: Any, *, timeout: float = 30) -> Any:
    """Return the response of the algorithm."""
    connection = http.client.HTTPConnection("runner")
    connection.sock = connect(endpoint_of(instance.id), settings().resolved_serving_dir, seconds=PATIENCE)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/?timeout={timeout}", json.dumps(given), headers)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def evaluated(instance: Instance, expression: str, **how: float) -> Any:
    """Return the response to evaluating an expression in the container."""
    return call(instance, {"eval": expression}, **how)


def reconciled(instance: Instance) -> Instance:
    """Reconcile once; return the row then."""
    reconcile()
    return fresh(instance)


def newest(build: Build) -> Instance:
    with database().reading() as session:
        found = session.scalars(
            select(Instance).where(Instance.version_id == build.version_id).order_by(Instance.seq.desc())
        ).first()
    assert found is not None
    return found


def job_of(instance: Instance) -> Job:
    return one_row(Job, id=instance.job_id)
