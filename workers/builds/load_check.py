"""Import a built algorithm in its image, without network, confined as when it runs; write the verdict to its build.

With `LONGSHORE_LOAD_CHECK=report` this is a task of its own, which begins when the build has ended: neither the build
nor its push waits for it. The build's row is the work: the verdict is written once, where there is none. If a worker is
lost, its message comes again, and the sweep writes `skipped` where no verdict came (`skip_overdue`). With `require` it
is a step of the build.
"""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from docker.errors import NotFound
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.cancellation import CancelToken, Deadline
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, Build, BuildStatus
from shared.db.models.algorithms import LoadCheckState
from shared.errors import ErrorClass, WorkCancelledError, WorkError, sentence
from shared.file_lock import poll_file_lock
from shared.plain_text import plain_text
from shared.settings import settings
from workers.builds.environment.container import PYTHON
from workers.docker.connection import engine, engine_errors, interruptible
from workers.docker.images import described_image, has_image, remove_container, remove_reference
from workers.docker.sandbox import confined
from workers.images.engine_transfer import load_image
from workers.images.factory import image_store
from workers.images.image import read_image
from workers.images.image_store import StoreUse, held_image
from workers.runner import ARGUMENTS, RUNS_AS

log = structlog.get_logger(__name__)

NAME_PREFIX = "longshore-check-"
MARGIN_SECONDS = 60
"""Time for a container to start and end beside the import, which the runner itself limits."""
MAX_TRACEBACK_LENGTH = 16 * 1024
MAX_OUTPUT_BYTES = 256 * 1024
OVERDUE_MS = 60 * 60 * 1000
FORGOTTEN_MS = 24 * OVERDUE_MS
MAX_WAITING_PER_OWNER = 20
"""Builds of one owner that wait for their check: an import can take minutes, and a build only seconds, so that an owner
could fill the queue of everybody's builds with checks, which no limit of queued jobs counts."""


@dataclass(frozen=True)
class LoadCheck:
    """The verdict. `text` is the traceback of a failed check, and the reason for a skipped one."""

    state: LoadCheckState
    text: str = ""

    def log_lines(self) -> list[str]:
        """Return the lines of the build log that tell it."""
        match self.state:
            case LoadCheckState.PASSED:
                return ["Load check: passed. The algorithm was imported in its image."]
            case LoadCheckState.FAILED:
                title = "Load check: failed. The algorithm cannot be imported in its image (here without network):"
                return [title, *self.text.splitlines()]
            case LoadCheckState.SKIPPED:
                return [f"Load check: skipped. {self.text}"]

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of the build's row."""
        failed = self.state is LoadCheckState.FAILED
        return {"load_check": self.state, "load_check_traceback": self.text if failed else None}


def skipped(reason: str) -> LoadCheck:
    return LoadCheck(LoadCheckState.SKIPPED, reason)


def check_build(job_id: str) -> None:
    """Check the build of a job that has ended, if it has succeeded and has no verdict yet."""
    unchecked = select(Build).where(
        Build.job_id == job_id, Build.status == BuildStatus.SUCCEEDED, Build.load_check.is_(None)
    )
    with database().reading() as session:
        build = session.scalars(unchecked).first()
    if build is None:
        return
    try:
        verdict = _too_many_wait(build)
        if verdict is None:
            _remove_leftovers()
            verdict = _check_unless_large(build)
    except WorkError as error:
        verdict = _skipped_by(error)
    except Exception as error:
        log.exception("load_check_failed_unexpectedly", build_id=build.id)
        verdict = skipped(f"Something went wrong in the worker ({type(error).__name__}); its log says more.")
    with database().writing() as session:
        write_verdict(session, build.id, verdict)
    log.info("load_check_ended", build_id=build.id, state=verdict.state)


def write_verdict(session: Session, build_id: str, verdict: LoadCheck) -> None:
    """Write the verdict to the row and the log of a build, unless it has one."""
    session.execute(
        update(Build)
        .where(Build.id == build_id, Build.load_check.is_(None))
        .values(**verdict.columns, log=Build.log + "".join(line + "\n" for line in verdict.log_lines()))
        .execution_options(synchronize_session=False)
    )


def skip_overdue(session: Session) -> int:
    """Write `skipped` to the builds whose check did not end, and return their number."""
    overdue = session.scalars(
        select(Build.id)
        .where(
            Build.load_check.is_(None),
            Build.status == BuildStatus.SUCCEEDED,
            Build.finished_at.between(now_ms() - FORGOTTEN_MS, now_ms() - OVERDUE_MS),
        )
        .limit(100)
    ).all()
    for build_id in overdue:
        write_verdict(session, build_id, skipped("It was not done within an hour of the build."))
    return len(overdue)


def check_image(
    use: StoreUse, manifest_digest: str, build_id: str, stop: CancelToken, deadline: Deadline | None = None
) -> LoadCheck:
    """Import the algorithm of an image of the store. `deadline` is that of loading the image into the engine.

    Raises:
        WorkCancelledError: the work was cancelled.
        WorkError: there is no engine, or it failed.
    """
    manifest = held_image(use, manifest_digest)
    if manifest is None:
        return skipped("The image is not in the store any more.")
    image = read_image(use, manifest.descriptor)
    if image.run_config.get("Entrypoint") != [PYTHON, *ARGUMENTS]:
        return skipped("The image was built by the source's own Dockerfile and does not start with Longshore's runner.")
    image_id = image.manifest.config.digest
    # Two checks of one image take turns, because the first one removes it from the engine.
    lock = settings().data_dir.absolute() / "locks" / f"check-{image_id.removeprefix('sha256:')[:32]}.lock"
    with poll_file_lock([lock], stop.check):
        name = f"{NAME_PREFIX}{build_id}"
        # A container of this name is of a worker that was lost during this check; so may be the image.
        was_there = has_image(image_id) and not _has_container(name)
        try:
            load_image(use, image, stop, deadline)
            return _import_in_container(image_id, name, stop)
        finally:
            if not was_there:
                _remove_unused(image_id)


def _too_many_wait(build: Build) -> LoadCheck | None:
    """Return the verdict if the owner of a build has more builds that wait for their check than may."""
    owner = select(Algorithm.owner).where(Algorithm.id == build.algorithm_id).scalar_subquery()
    of_owner = (
        select(Build.id)
        .join(Algorithm, Algorithm.id == Build.algorithm_id)
        .where(
            Build.load_check.is_(None),
            Build.status == BuildStatus.SUCCEEDED,
            Build.finished_at > now_ms() - OVERDUE_MS,
            Algorithm.owner == owner,
        )
        .limit(MAX_WAITING_PER_OWNER + 1)
    )
    with database().reading() as session:
        waiting = len(session.scalars(of_owner).all())
    if waiting <= MAX_WAITING_PER_OWNER:
        return None
    return skipped(
        f"More than {MAX_WAITING_PER_OWNER} builds of the owner wait for their check; later ones are checked."
    )


def _check_unless_large(build: Build) -> LoadCheck:
    if build.manifest_digest is None:
        return skipped("The image is not in the store.")
    if (build.image_bytes or 0) > settings().load_check_max_bytes and not has_image(build.image_id or ""):
        return skipped(
            f"The image has {build.image_bytes} bytes, more than LONGSHORE_LOAD_CHECK_MAX_BYTES allows to load."
        )
    stop = CancelToken()
    seconds = settings().load_check_seconds
    deadline = Deadline(seconds)
    with image_store().use(stop) as use:
        try:
            return check_image(use, build.manifest_digest, build.id, stop, deadline)
        except WorkError as error:
            if deadline.left or error.error_class is not ErrorClass.INVALID:
                raise
            return skipped(f"Loading the image into the engine took longer than {seconds:g} seconds.")


def _import_in_container(image_id: str, name: str, stop: CancelToken) -> LoadCheck:
    seconds = settings().load_check_seconds
    remove_container(name)
    try:
        with engine_errors():
            client = engine()
            client.create_container(
                image_id,
                command=["check", f"{seconds:g}"],
                name=name,
                user=f"{RUNS_AS}:{RUNS_AS}",
                healthcheck={"test": ["NONE"]},
                host_config=confined(client, image_id, "none"),
                use_config_proxy=False,
            )
            client.start(name)
        limit = Deadline(seconds + MARGIN_SECONDS)
        try:
            with interruptible(stop, limit) as waiting:
                waiting.wait(name)
        except WorkError:
            if limit.left:
                raise
            return LoadCheck(LoadCheckState.FAILED, f"The import did not end within {seconds:g} seconds.")
        with engine_errors():
            output = engine().logs(name, stdout=True, stderr=False)[-MAX_OUTPUT_BYTES:]
            state = engine().inspect_container(name)["State"]
        return _verdict(output, state)
    finally:
        with suppress(WorkError):
            remove_container(name)


def _has_container(name: str) -> bool:
    with engine_errors(), suppress(NotFound):
        engine().inspect_container(name)
        return True
    return False


def _verdict(output: bytes, state: dict[str, Any]) -> LoadCheck:
    """Read what the runner wrote last. An algorithm that writes in its place deceives its owner alone."""
    try:
        found = json.loads(output.rpartition(b"\n")[2])
        passed, text = found["state"] == "passed", str(found.get("traceback", ""))
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError):
        passed, text = False, f"The container ended with exit status {state.get('ExitCode')} before the import had."
    if passed:
        return LoadCheck(LoadCheckState.PASSED)
    if state.get("OOMKilled"):
        text += f"\nIt used more memory than an instance has: {settings().serving_memory_bytes // 2**20} MiB."
    return LoadCheck(LoadCheckState.FAILED, plain_text(text)[-MAX_TRACEBACK_LENGTH:].strip())


def _remove_unused(image_id: str) -> None:
    """Remove an image that was loaded for the check, unless it got a name or a container meanwhile."""
    with suppress(WorkError):
        described = described_image(image_id)
        if described is not None and not (described.get("RepoTags") or described.get("RepoDigests")):
            remove_reference(image_id)


def require_load(use: StoreUse, manifest_digest: str, build_id: str, stop: CancelToken) -> LoadCheck:
    """Check an image before its build ends; without an engine the check is skipped.

    Raises:
        WorkCancelledError: the build was cancelled.
    """
    try:
        return check_image(use, manifest_digest, build_id, stop)
    except WorkCancelledError:
        raise
    except WorkError as error:
        return _skipped_by(error)


def _skipped_by(error: WorkError) -> LoadCheck:
    return skipped(sentence(error.message.removesuffix(".").removesuffix("; the job waits")))


def _remove_leftovers() -> None:
    """Remove the containers that checks of killed workers left behind."""
    before = time.time() - 10 * (settings().load_check_seconds + MARGIN_SECONDS)
    with engine_errors():
        containers = engine().containers(all=True, filters={"name": NAME_PREFIX})
    for container in containers:
        if container["Created"] < before and any(name.startswith(f"/{NAME_PREFIX}") for name in container["Names"]):
            remove_container(container["Id"])
