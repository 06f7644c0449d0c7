"""Locate the image of a push: in the store, in a registry, on the engine; or else build it again."""

from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import exists, select, update

from shared.cancellation import CancelToken
from shared.db.engine import database
from shared.db.models import Algorithm, Build, Job
from shared.errors import ErrorClass, WorkError
from shared.fence import HELD, Claim, held_by
from shared.file_lock import poll_file_lock
from shared.settings import settings
from workers.builds.build import make_image
from workers.docker.images import has_image, local_reference, name_image
from workers.images.engine_transfer import load_image, save_image
from workers.images.image import image_name, read_image
from workers.images.image_store import StoreUse, held_image
from workers.images.oci import Manifest
from workers.pushes.pull import pull_from_registry


class ImageSearch:
    """The search for the image of a succeeded build.

    Sources that keep the digest come first: a registry has the same bytes, an engine compresses them again, and another
    build may differ. `show_step` is called with a message for each step; `before_slow_steps` once, before the first
    slow one.
    """

    def __init__(
        self,
        claim: Claim,
        algorithm: Algorithm,
        build: Build,
        *,
        show_step: Callable[[str], None],
        stop: CancelToken,
        before_slow_steps: Callable[[], None],
    ) -> None:
        self._claim = claim
        self._algorithm = algorithm
        self._build = build
        self._known_digest = build.manifest_digest
        self._show_step = show_step
        self._stop = stop
        self._before_slow_steps = before_slow_steps
        self.remark = ""
        """Addition to the status message about the source of the image; begins with a space, or is empty."""

    def in_store(self, use: StoreUse) -> Manifest:
        """Return the image, held in the store with all its blobs.

        Raises:
            WorkCancelledError: the push was cancelled.
            WorkError: no source has the image.

        """
        manifest = self._held(use)
        if manifest is not None:
            return manifest
        self._before_slow_steps()
        # Concurrent pushes of one lost image locate it once: two builds of it might differ.
        with poll_file_lock(
            [settings().data_dir.absolute() / "locks" / f"{self._build.id}.lock"],
            self._stop.check,
            on_wait=lambda: self._show_step("Another push is looking for the same image: waiting for it."),
        ):
            with database().reading() as session:
                self._known_digest = session.scalar(select(Build.manifest_digest).where(Build.id == self._build.id))
            manifest = self._held(use)
            if manifest is None:
                manifest = self._locate(use)
                self._record(use, manifest)
        return manifest

    def on_engine(self, use: StoreUse) -> str:
        """Return the id of the image on the engine.

        Raises:
            WorkCancelledError: the push was cancelled.
            WorkError: no source has the image.

        """
        known_id = self._build.image_id
        if known_id is not None and has_image(known_id):
            return known_id
        manifest = self.in_store(use)
        self._show_step("Loads the image into the engine.")
        image_id = load_image(use, read_image(use, manifest.descriptor), self._stop)
        name_image(image_id, local_reference(self._algorithm.owner, self._algorithm.name, self._build.commit_sha))
        return image_id

    def _held(self, use: StoreUse) -> Manifest | None:
        return held_image(use, self._known_digest) if self._known_digest is not None else None

    def _locate(self, use: StoreUse) -> Manifest:
        try:
            pulled = pull_from_registry(
                use, self._algorithm, self._build, self._known_digest, self._show_step, self._stop
            )
        except WorkError:
            # The registry that failed may have the image; another build might give a different one.
            saved = self._from_engine(use)
            if saved is None:
                raise
            return saved
        if pulled is not None:
            manifest, registry_url = pulled
            self.remark = f" The image was pulled from {registry_url}."
            return manifest
        return self._from_engine(use) or self._rebuild(use)

    def _record(self, use: StoreUse, manifest: Manifest) -> None:
        """Write the digest to the build's row, unless another push has changed it or this claim is over."""
        digest = manifest.descriptor.digest
        use.name(image_name(digest), manifest.descriptor)
        if self._known_digest not in (None, digest):
            self.remark += " Its digest differs from that of earlier pushes."
        with database().writing() as session:
            session.execute(
                update(Build)
                .where(
                    Build.id == self._build.id,
                    Build.manifest_digest.is_not_distinct_from(self._known_digest),
                    exists(select(Job.id).where(HELD)),
                )
                .values(manifest_digest=digest, image_id=manifest.config.digest)
                .execution_options(synchronize_session=False),
                held_by(self._claim),
            )

    def _from_engine(self, use: StoreUse) -> Manifest | None:
        """Save the image from the engine, which may have it from its own build."""
        image_id = self._build.image_id
        # Workers that only push need no engine.
        with suppress(WorkError):
            if image_id is not None and has_image(image_id):
                self._show_step("The image store does not have the image; takes it from the engine.")
                return save_image(use, image_id, self._stop).manifest
        return None

    def _rebuild(self, use: StoreUse) -> Manifest:
        self._show_step("The image store does not have the image, nor has any registry; builds it again.")
        built = make_image(
            self._algorithm,
            self._build.commit_sha,
            use,
            log=self._show_step,
            stop=self._stop,
            made_with=self._build.environment_key,
        )
        self.remark = " The image was built again."
        manifest = held_image(use, built.manifest_digest)
        if manifest is None:
            raise WorkError(ErrorClass.TRANSIENT, "The image was removed from the store as soon as it was built.")
        return manifest
