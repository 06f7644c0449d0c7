"""Run a build job: fetch the source of the commit, build its image, and write log and result to the build's row.

Writes to the row are fenced by the claim of the job (rule 2).
"""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta

from sqlalchemy import event, exists, select, update
from sqlalchemy.orm import Session

from shared.cancellation import CancelToken
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, Build, BuildStatus, Job
from shared.db.models.algorithms import LoadCheckState
from shared.encryption import DecryptionError, keyring
from shared.environments import UnknownEnvironmentError, chosen_environment
from shared.errors import ErrorClass, WorkError
from shared.fence import HELD, Claim, held_by
from shared.git.access import GitCredentials
from shared.git.sources import decrypt_source_credentials
from shared.settings import settings
from shared.webhooks.events import EventType, emit_build
from workers.builds.build_log import LogBuffer, append_log, remove_old_logs
from workers.builds.context import BuildLimits
from workers.builds.dockerfile import remove_interrupted
from workers.builds.environment.container import name_prefix, remove_leftover_containers
from workers.builds.image import BuildRequest, BuiltImage, build_image
from workers.builds.load_check import MARGIN_SECONDS, LoadCheck, require_load, skipped
from workers.builds.source import fetch_source
from workers.images.factory import image_store
from workers.images.image_store import StoreUse
from workers.jobs.executor import Finish
from workers.jobs.heartbeat import Heartbeat


def write_built(
    session: Session,
    claim: Claim,
    *,
    image_id: str,
    manifest_digest: str | None,
    image_bytes: int,
    environment_key: str | None,
    load_check: LoadCheck | None = None,
) -> None:
    """Write that the build has succeeded. The job's end, in the same transaction, is the fence."""
    session.execute(
        update(Build)
        .where(Build.id == claim.build_id)
        .values(
            status=BuildStatus.SUCCEEDED,
            message=None,
            image_id=image_id,
            manifest_digest=manifest_digest,
            image_bytes=image_bytes,
            environment_key=environment_key,
            finished_at=now_ms(),
            **({} if load_check is None else load_check.columns),
        )
    )
    emit_build(session, claim.build_id or "", EventType.BUILD_SUCCEEDED)


class BuildWork:
    """The work of one build job under a claim."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._log = LogBuffer()
        self._load_check: LoadCheck | None = None

    def write(self, session: Session) -> None:
        """Append new lines to the log in the row. A line leaves the buffer when it is committed, not before."""
        lines = self._log.unwritten()
        if lines:
            append_log(session, self._claim, "".join(lines))
            event.listen(session, "after_commit", lambda _: self._log.remove_written(len(lines)), once=True)
        if self._load_check is not None:
            session.execute(
                update(Build)
                .where(Build.id == self._claim.build_id, exists(select(Job.id).where(HELD)))
                .values(self._load_check.columns)
                .execution_options(synchronize_session=False),
                held_by(self._claim),
            )

    def do(self, heartbeat: Heartbeat) -> Finish:
        with database().reading() as session:
            build = session.scalars(select(Build).where(Build.id == self._claim.build_id)).one()
            algorithm = session.scalars(select(Algorithm).where(Algorithm.id == build.algorithm_id)).one()
        with database().writing() as session:
            remove_old_logs(session, algorithm.owner, keep=settings().build_logs_per_owner)
        self._remove_leftovers(algorithm, build)

        def log(line: str) -> None:
            heartbeat.record_progress()
            self._log.add(line)

        if self._claim.number > 1:
            log(f"--- Restarted (attempt {self._claim.number}) ---")
        with image_store().use(heartbeat.cancel_token) as use:
            built = make_image(
                algorithm,
                build.commit_sha,
                use,
                refresh=build.refreshes_environment,
                log=log,
                stop=heartbeat.cancel_token,
            )
            self._check_load(use, built, heartbeat, log)
        return lambda session: write_built(
            session,
            self._claim,
            image_id=built.image_id,
            manifest_digest=built.manifest_digest,
            image_bytes=built.size_bytes,
            environment_key=built.environment_key,
            load_check=self._load_check,
        )

    def _check_load(self, use: StoreUse, built: BuiltImage, heartbeat: Heartbeat, log: Callable[[str], None]) -> None:
        """Check the image now if that is required; otherwise it is checked after the build, or never.

        Raises:
            WorkError: the algorithm cannot be imported (invalid).
        """
        mode = settings().load_check
        if mode == "report":
            return
        if mode == "off":
            self._load_check = skipped("It is switched off (LONGSHORE_LOAD_CHECK).")
            return
        heartbeat.record_progress(pause_seconds=settings().load_check_seconds + MARGIN_SECONDS)
        verdict = require_load(use, built.manifest_digest, str(self._claim.build_id), heartbeat.cancel_token)
        self._load_check = verdict
        for line in verdict.log_lines():
            log(line)
        if verdict.state is LoadCheckState.FAILED:
            raise WorkError(
                ErrorClass.INVALID,
                "the algorithm cannot be imported in its image, which LONGSHORE_LOAD_CHECK=require asks for: "
                f"{verdict.text.rpartition(chr(10))[2]}",
            )

    def _remove_leftovers(self, algorithm: Algorithm, build: Build) -> None:
        """Remove what killed workers left on the engine, of this build (no other claim works on it) and of old ones."""
        if self._claim.number > 1:
            remove_leftover_containers(timedelta(0), name_prefix(algorithm.owner, build.commit_sha))
            # A push that waits may use any image that a build of the commit has made.
            images = select(Build.image_id).where(Build.version_id == build.version_id, Build.image_id.is_not(None))
            with database().reading() as session:
                keep = {image_id for image_id in session.scalars(images) if image_id}
            remove_interrupted(f"{algorithm.owner}/{algorithm.name}", build.commit_sha, keep)
        # A build whose environment is in the store needs no engine.
        with suppress(WorkError):
            remove_leftover_containers(timedelta(seconds=2 * settings().build_seconds))


def make_image(
    algorithm: Algorithm,
    commit: str,
    use: StoreUse,
    *,
    log: Callable[[str], None],
    stop: CancelToken,
    refresh: bool = False,
    made_with: str | None = None,
) -> BuiltImage:
    """Fetch a commit's source and build its image, which `use` holds in the store.

    With `refresh` its requirements are resolved again, even if the store has an environment for them. `made_with` is
    the key of the environment that an earlier image of the commit had.

    Raises:
        WorkCancelledError: the build was cancelled.
        WorkError: the source or the engine failed.
    """
    chosen = settings()
    with ExitStack() as stack:
        try:
            base_image = _base_image(algorithm)
            tar = stack.enter_context(
                fetch_source(algorithm, commit, _source_credentials(algorithm), log=log, stop=stop)
            )
        except WorkError as error:
            log(error.message)  # the log's last line is the cause; from here on `build_image` adds it
            raise
        return build_image(
            BuildRequest(
                owner=algorithm.owner,
                name=algorithm.name,
                commit=commit,
                source=tar,
                base_image=base_image,
                kit_requirement=chosen.kit_requirement,
                index_url=chosen.build_index_url.get_secret_value() if chosen.build_index_url else None,
                ca_bundle=chosen.build_ca_bundle.read_bytes() if chosen.build_ca_bundle else None,
                network=chosen.build_network,
                limits=BuildLimits(
                    memory_bytes=chosen.build_memory_bytes,
                    cpus=chosen.build_cpus,
                    pids=chosen.build_pids,
                    seconds=chosen.build_seconds,
                    log_bytes=chosen.build_log_bytes,
                    disk_bytes=chosen.build_max_bytes,
                    files=chosen.build_max_files,
                ),
                refresh=refresh,
                made_with=made_with,
                allow_dockerfile=chosen.build_own_dockerfile,
                lock_directory=chosen.data_dir.absolute() / "locks",
            ),
            use,
            log,
            stop,
        )


def _source_credentials(algorithm: Algorithm) -> GitCredentials | None:
    try:
        opened = decrypt_source_credentials(keyring(), algorithm)
    except DecryptionError as error:
        raise WorkError(ErrorClass.INVALID, f"The repository's credentials cannot be used: {error}.") from None
    return GitCredentials(*opened) if opened else None


def _base_image(algorithm: Algorithm) -> str:
    try:
        return chosen_environment(algorithm.settings).base_image
    except UnknownEnvironmentError as error:
        raise WorkError(
            ErrorClass.INVALID, f"{error.message} Change the algorithm's settings, or restore it."
        ) from None
