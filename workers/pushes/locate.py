"""Where the image of a push comes from: the store, a registry that has it, the engine, else it is built again."""

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
from workers.pushes.pull import pulled_image


class ImageSearch:
    """The search for the image of a succeeded build, in whatever way is left.

    What keeps the digest is tried first: a registry has the very bytes, an engine compresses them again, and what is
    built again may differ. `say` is told what is being done; `before_long` is called once, before anything that takes
    long.
    """

    def __init__(
        self,
        claim: Claim,
        algorithm: Algorithm,
        build: Build,
        *,
        say: Callable[[str], None],
        stop: CancelToken,
        before_long: Callable[[], None],
    ) -> None:
        self._claim = claim
        self._algorithm = algorithm
        self._build = build
        self._known = build.manifest_digest
        self._say = say
        self._stop = stop
        self._before_long = before_long
        self.remark = ""
        """What the status should say of where the image came from; begins with a space, or nothing."""

    def in_store(self, use: StoreUse) -> Manifest:
        """The image, held in the store with everything that it names.

        Raises:
            Stopped: the stop was asked for.
            WorkError: no way to the image worked.
        """
        manifest = self._held(use)
        if manifest is not None:
            return manifest
        self._before_long()
        # Several pushes of one lost image find it once: built twice it might differ.
        with poll_file_lock(
            [settings().data_dir.absolute() / "locks" / f"{self._build.id}.lock"],
            self._stop.check,
            on_wait=lambda: self._say("Another push is looking for the same image: waiting for it."),
        ):
            with database().reading() as session:
                self._known = session.scalar(select(Build.manifest_digest).where(Build.id == self._build.id))
            manifest = self._held(use)
            if manifest is None:
                manifest = self._found(use)
                self._keep(use, manifest)
        return manifest

    def on_engine(self, use: StoreUse) -> str:
        """The image's id on the engine.

        Raises:
            Stopped: the stop was asked for.
            WorkError: no way to the image worked.
        """
        known = self._build.image_id
        if known is not None and has_image(known):
            return known
        manifest = self.in_store(use)
        self._say("Loads the image into the engine.")
        image_id = load_image(use, read_image(use, manifest.descriptor), self._stop)
        name_image(image_id, local_reference(self._algorithm.owner, self._algorithm.name, self._build.commit_sha))
        return image_id

    def _held(self, use: StoreUse) -> Manifest | None:
        return held_image(use, self._known) if self._known is not None else None

    def _found(self, use: StoreUse) -> Manifest:
        try:
            pulled = pulled_image(use, self._algorithm, self._build, self._known, self._say, self._stop)
        except WorkError:
            # Who is away may have the image, and what is built again may be another one.
            manifest = self._from_engine(use)
            if manifest is None:
                raise
            return manifest
        if pulled is not None:
            self.remark = f" The image was pulled from {pulled.registry_url}."
            return pulled.manifest
        return self._from_engine(use) or self._built_again(use)

    def _keep(self, use: StoreUse, manifest: Manifest) -> None:
        """Let the build's row say where the image is, unless somebody else found it, or this claim is over."""
        digest = manifest.descriptor.digest
        use.name(image_name(digest), manifest.descriptor)
        if self._known not in (None, digest):
            self.remark += " Its digest differs from that of earlier pushes."
        with database().writing() as session:
            session.execute(
                update(Build)
                .where(
                    Build.id == self._build.id,
                    Build.manifest_digest.is_not_distinct_from(self._known),
                    exists(select(Job.id).where(HELD)),
                )
                .values(manifest_digest=digest, image_id=manifest.config.digest)
                .execution_options(synchronize_session=False),
                held_by(self._claim),
            )

    def _from_engine(self, use: StoreUse) -> Manifest | None:
        """An image that an engine built, before there was a store or because the store lost it."""
        image_id = self._build.image_id
        # Workers that only push need no engine.
        with suppress(WorkError):
            if image_id is not None and has_image(image_id):
                self._say("The image store does not have the image; takes it from the engine.")
                return save_image(use, image_id, self._stop).manifest
        return None

    def _built_again(self, use: StoreUse) -> Manifest:
        self._say("The image store does not have the image, nor has any registry; builds it again.")
        built = make_image(
            self._algorithm,
            self._build.commit_sha,
            use,
            log=self._say,
            stop=self._stop,
            made_with=self._build.environment_key,
        )
        self.remark = " The image was built again."
        manifest = held_image(use, built.manifest_digest)
        if manifest is None:
            raise WorkError(ErrorClass.TRANSIENT, "The image was removed from the store as soon as it was built.")
        return manifest
