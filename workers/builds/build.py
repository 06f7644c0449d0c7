"""The work of a build: fetch the commit's source, make its image, keep the log in the row while it runs."""

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from shared.builds import append_log, write_built
from shared.cancellation import CancelToken
from shared.db.engine import database
from shared.db.models import Algorithm, Build
from shared.encryption import DecryptionError, keyring
from shared.errors import ErrorClass, WorkError, storable
from shared.fence import Claim
from shared.git.access import GitCredentials
from shared.git.sources import open_source
from shared.settings import Settings, settings
from workers.builds.dockerfile import remove_cut_short
from workers.builds.environment.container import name_prefix, remove_left_overs
from workers.builds.image import BuildRequest, BuiltImage, build_image
from workers.builds.limits import BuildLimits
from workers.builds.source import fetch_source
from workers.images.factory import image_store
from workers.images.image_store import StoreUse
from workers.jobs.executor import Finish
from workers.jobs.heartbeat import Heartbeat


class LogBuffer:
    """Lines that the build said since they were last written down."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Keep a line; from the work's thread."""
        with self._lock:
            self._lines.append(storable(line) + "\n")

    def unwritten(self) -> list[str]:
        """The lines that were not written down yet."""
        with self._lock:
            return list(self._lines)

    def written(self, number: int) -> None:
        """So many of them are in the row now, and the transaction is committed."""
        with self._lock:
            del self._lines[:number]


class BuildWork:
    """One build under a claim."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._log = LogBuffer()

    def write(self, session: Session) -> None:
        """Append to the log in the row what was said since. A line is forgotten when it is committed, not before."""
        lines = self._log.unwritten()
        if lines:
            append_log(session, self._claim, "".join(lines))
            event.listen(session, "after_commit", lambda _session: self._log.written(len(lines)), once=True)

    def do(self, keeper: Heartbeat) -> Finish:
        """Build the image."""
        with database().reading() as session:
            build = session.scalars(select(Build).where(Build.id == self._claim.build_id)).one()
            algorithm = session.scalars(select(Algorithm).where(Algorithm.id == build.algorithm_id)).one()
        self._clear_away(algorithm, build)

        def log(line: str) -> None:
            keeper.record_progress()
            self._log.add(line)

        if self._claim.number > 1:
            log(f"--- Begun anew (attempt {self._claim.number}) ---")
        with image_store().use(keeper.stop) as use:
            built = make_image(
                algorithm,
                build.commit_sha,
                use,
                refresh=build.refreshes_environment,
                log=log,
                stop=keeper.stop,
            )
        return lambda session: write_built(
            session,
            self._claim,
            image_id=built.image_id,
            manifest_digest=built.manifest_digest,
            image_bytes=built.size_bytes,
            environment_key=built.environment_key,
        )

    def _clear_away(self, algorithm: Algorithm, build: Build) -> None:
        """Remove what killed workers left: of this very build, which is this claim's alone now, and of old ones."""
        if self._claim.number > 1:
            remove_left_overs(timedelta(0), name_prefix(algorithm.owner, build.commit_sha))
            remove_cut_short(f"{algorithm.owner}/{algorithm.name}", build.commit_sha, keep=_known_images(build))
        # A build whose environment is in the store needs no engine.
        with suppress(WorkError):
            remove_left_overs(timedelta(seconds=2 * settings().build_seconds))


def _known_images(build: Build) -> set[str]:
    """The images of the commit that builds of it have made: a push that waits may name any."""
    with database().reading() as session:
        made = select(Build.image_id).where(Build.version_id == build.version_id)
        return {image_id for image_id in session.scalars(made) if image_id is not None}


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
    """Fetch a commit's source and build its image, which is held in the store by `use`.

    With `refresh` its requirements are resolved anew, though an environment for them may be there. `made_with` is the
    key of the environment that it had when it was built before.

    Raises:
        Stopped: the stop was asked for.
        WorkError: the source or the engine failed.
    """
    chosen = settings()
    with ExitStack() as kept:
        try:
            fetched = fetch_source(algorithm, commit, _source_credentials(algorithm), log=log, stop=stop)
            source = kept.enter_context(fetched)
        except WorkError as error:
            log(error.message)  # the log's last line says why; from here on `build_image` sees to that
            raise
        return build_image(
            _request(algorithm, commit, source.tar, chosen, refresh=refresh, made_with=made_with), use, log, stop
        )


def _request(
    algorithm: Algorithm, commit: str, source: Path, chosen: Settings, *, refresh: bool, made_with: str | None
) -> BuildRequest:
    return BuildRequest(
        owner=algorithm.owner,
        name=algorithm.name,
        commit=commit,
        source=source,
        base_image=_base_image(algorithm, chosen),
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
        ),
        refresh=refresh,
        made_with=made_with,
        allow_dockerfile=chosen.build_own_dockerfile,
        lock_directory=chosen.data_dir.absolute() / "locks",
    )


def _source_credentials(algorithm: Algorithm) -> GitCredentials | None:
    try:
        opened = open_source(keyring(), algorithm)
    except DecryptionError as error:
        raise WorkError(ErrorClass.INVALID, f"The repository's credentials cannot be used: {error}.") from None
    return GitCredentials(*opened) if opened else None


def _base_image(algorithm: Algorithm, chosen: Settings) -> str:
    for field in ("algorithm_environment", "package_set", "language"):
        name = algorithm.settings.get(field)
        if name in chosen.base_images:
            return chosen.base_images[name]
    return chosen.base_image
