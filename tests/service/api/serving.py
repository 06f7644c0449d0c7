"""Serve versions without an engine: run the runner of an image, and write the rows that a start writes."""

import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from dev.services.processes import descendants
from shared.commands.serve import ensure_instance
from shared.db.engine import database
from shared.db.models import Algorithm, Instance, InstanceState, Registry, Version
from shared.file_lock import file_lock
from shared.instances.endpoints import endpoint_of
from shared.instances.states import DesiredState, mark_ready
from shared.pulls.resolution import resolve_pull
from shared.settings import settings
from tests.rows import HASH, build_commit, change, end_push, make_claim, make_registry, one_row, push
from tests.unit.workers.runner.running import PROTOCOL, Runner, runner_python

ECHO = f"""{PROTOCOL}
serve(lambda asked: asked)
"""
"""Responds with the request that the kit got."""


def pushed_version(
    algorithm: Algorithm, registry: Registry | None = None, git_hash: str = HASH, **fields: object
) -> Version:
    """A version that was built, and pushed with success; `fields` are its columns, such as its number."""
    registry = registry or make_registry()
    image = f"{registry.registry_url}/{algorithm.image_path}:{git_hash}"
    end_push(make_claim(push(build_commit(algorithm, git_hash), registry)), image=image)
    version = one_row(Version, algorithm_id=algorithm.id, git_hash=git_hash)
    if fields:
        change(version, **fields)
    return one_row(Version, id=version.id)


def pending_instance(algorithm: Algorithm, version: Version) -> Instance:
    """Create the instance of a version, in the state pending."""
    with database().writing() as session:
        desired = DesiredState.of(algorithm, version, resolve_pull(session, algorithm, version))
        assert desired is not None
        return ensure_instance(session, desired)[0]


def ready(instance: Instance, endpoint: str | None = None) -> None:
    """Mark an instance as ready: at an endpoint, or else on its socket."""
    with database().writing() as session:
        assert mark_ready(session, instance.id, endpoint=endpoint or endpoint_of(instance.id), runtime_ref="test")


def directory_of(instance: Instance) -> Path:
    """Return the directory with the socket of an instance."""
    directory = settings().resolved_serving_dir / instance.id
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextmanager
def runner(instance: Instance, source: str = ECHO, environment: Mapping[str, str] | None = None) -> Iterator[Runner]:
    """Run the runner of an instance while the block runs."""
    directory = directory_of(instance)
    tree = directory / "source"
    (tree / "src").mkdir(parents=True)
    (tree / "src" / "Hello.py").write_text(source)
    with file_lock(Path(tempfile.gettempdir()) / "longshore-algoout"):  # the kit's named pipe has one path for all
        running = Runner(tree, directory, runner_python(), environment or {})
        try:
            yield running
        finally:
            # As the end of a container does: the algorithm's process is in a session of its own and would stay.
            family = [*descendants(running.process.pid), running.process.pid]
            for member in reversed(family):
                with suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
            running.process.wait()


def live_instance(version: Version) -> Instance:
    """Return the one instance of a version that is pending or ready."""
    with database().reading() as session:
        return (
            session.query(Instance)
            .filter(Instance.version_id == version.id, Instance.state.in_((InstanceState.PENDING, InstanceState.READY)))
            .one()
        )
