"""The work of a push: by the transport that the registry wants, believing only what it itself confirms (rule 3)."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from sqlalchemy import event
from sqlalchemy.orm import Session

from shared.db.engine import database
from shared.errors import WorkError
from shared.fence import Claim
from shared.pushes.progress import Progress, write_progress, write_success
from shared.registries.blob_locations import MIN_MOUNT_BYTES, known_blob_locations, record_blob_locations
from shared.registry.client import RegistryClient
from shared.registry.upload import BlobOutcome
from shared.settings import settings
from workers.images.factory import image_store
from workers.images.image_store import StoreUse
from workers.images.oci import Manifest
from workers.jobs.executor import Finish
from workers.jobs.heartbeat import Heartbeat
from workers.pushes.client_pool import client_pool
from workers.pushes.locate import ImageSearch
from workers.pushes.plan import PushPlan, read_plan
from workers.pushes.transports.direct import DirectTransport, UploadLimits, registry_manifest
from workers.pushes.transports.engine import EngineTransport
from workers.pushes.transports.transport import PushedImage, Progress, Transport


class ShownProgress:
    """How far the push is, kept for the lease's thread, which writes it down at most once a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: tuple[Progress, str] | None = None
        self._written: tuple[Progress, str] | None = None

    def show(self, progress: Progress, message: str) -> None:
        """Keep what is to be written next."""
        with self._lock:
            self._now = (progress, message)

    def unwritten(self) -> tuple[Progress, str] | None:
        """What is not in the row yet."""
        with self._lock:
            return None if self._now == self._written else self._now

    def drop(self) -> None:
        """What was said is overtaken, and not worth writing any more."""
        with self._lock:
            self._written = self._now

    def written(self, shown: tuple[Progress, str]) -> None:
        """This is in the row now, and the transaction is committed."""
        with self._lock:
            self._written = shown


class PushWork:
    """One push under a claim."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._shown = ShownProgress()
        self._progress = Progress()

    def write(self, session: Session) -> None:
        """Write progress into the push row."""
        changed = self._shown.unwritten()
        if changed is not None:
            write_progress(session, self._claim, *changed)
            event.listen(session, "after_commit", lambda _session: self._shown.written(changed), once=True)

    def do(self, keeper: Heartbeat) -> Finish:
        """Push every tag, and have the registry confirm each."""
        with database().reading() as session:
            plan = read_plan(session, self._claim)
        with client_pool().client(plan.registry, plan.credentials, keeper.stop) as kept:
            if not kept.has_just_answered:
                self._say(keeper, f"Asks {plan.registry.registry_url} whether it takes the push.")
                with _at_registry(first_answer=True):
                    kept.ping()
            digest = plan.build.manifest_digest
            if digest is not None and _is_there(plan, kept.client, digest):
                self._shown.drop()
                return self._done(plan, PushedImage(digest))
            return self._pushed(plan, kept.client, keeper)

    def _pushed(self, plan: PushPlan, client: RegistryClient, keeper: Heartbeat) -> Finish:
        search = ImageSearch(
            self._claim, plan.algorithm, plan.build, say=lambda text: self._say(keeper, text), stop=keeper.stop,
            before_long=lambda: _refuse_early(plan, client),
        )  # fmt: skip
        with image_store().use(keeper.stop) as use:
            transport, known = _transport(plan, client, search, use, keeper)
            with _at_registry():
                pushed = transport.push(
                    plan.tags,
                    # The fence cannot reach into a registry: it is looked at before each tag moves.
                    before_tag=lambda _tag: keeper.hold_for(_tag_seconds()),
                    on_progress=lambda seen, message: self._show(keeper, seen, message),
                )
        return self._done(plan, pushed, search.remark, _worth_noting(pushed, known))

    def _done(self, plan: PushPlan, pushed: PushedImage, remark: str = "", layers: Sequence[str] = ()) -> Finish:
        message = f"The registry confirmed {pushed.digest} under {' and '.join(plan.tags)}.{remark}{pushed.remark}"

        def finish(session: Session) -> None:
            write_success(session, self._claim, digest=pushed.digest, image=plan.image, message=message)
            if layers:
                record_blob_locations(session, plan.registry.id, layers, plan.path)

        return finish

    def _show(self, keeper: Heartbeat, seen: Progress, message: str) -> None:
        moved = Progress(seen.done_bytes, seen.total_bytes, seen.layers_done, seen.layers_total)
        if moved != self._progress:
            keeper.record_progress()
            self._progress = moved
        self._shown.show(moved, message)

    def _say(self, keeper: Heartbeat, message: str) -> None:
        keeper.record_progress()
        self._shown.show(self._progress, message)


def _transport(
    plan: PushPlan, client: RegistryClient, search: ImageSearch, use: StoreUse, keeper: Heartbeat
) -> tuple[Transport, Mapping[str, str | None]]:
    """The transport for this push; and for each large layer, where else the registry is known to have it."""
    if plan.transport == "engine":
        _refuse_early(plan, client)
        image_id = search.on_engine(use)
        return (
            EngineTransport(
                client,
                plan.repository,
                plan.path,
                image_id,
                verify_tls=plan.registry.verify_tls,
                ca_certificate=plan.registry.ca_certificate,
                proxy_url=plan.registry.proxy_url,
                stop=keeper.stop,
            ),
            {},
        )
    manifest = search.in_store(use)
    large = _large_layers(manifest)
    with database().reading() as session:
        known = known_blob_locations(session, plan.registry.id, large)
    limits = UploadLimits(
        per_push=settings().uploads_per_push,
        per_registry=settings().uploads_per_registry,
        lock_directory=settings().data_dir.absolute() / "locks",
        tag_seconds=_tag_seconds(),
    )
    return (
        DirectTransport(client, plan.path, manifest, use, mount_from=known, limits=limits, stop=keeper.stop),
        {digest: known.get(digest) for digest in large},
    )


def _is_there(plan: PushPlan, client: RegistryClient, digest: str) -> bool:
    """Whether the registry shows what the direct transport would push, and is believed to have all of it."""
    with _at_registry():
        if plan.transport != "direct":
            return False
        look_at_blobs = not plan.was_whole_lately
        return registry_manifest(client, plan.path, plan.tags, {digest}, look_at_blobs=look_at_blobs) is not None


def _worth_noting(pushed: PushedImage, known: Mapping[str, str | None]) -> list[str]:
    """The large layers of which it was not known where they are, or not where they are now."""
    return [
        digest
        for digest, place in known.items()
        if pushed.placed.get(digest) == BlobOutcome.UPLOADED or (place is None and digest in pushed.placed)
    ]


def _large_layers(manifest: Manifest) -> list[str]:
    return list({layer.digest: None for layer in manifest.layers if layer.size >= MIN_MOUNT_BYTES})


def _tag_seconds() -> float:
    """How long the putting of a tag may take: it must be over while the lease still holds."""
    return settings().lease_seconds / 3


def _refuse_early(plan: PushPlan, client: RegistryClient) -> None:
    """Find out what would be found out late, after an image was pulled, built or compressed."""
    with _at_registry():
        refusal = client.push_refusal(plan.path)
        if refusal is not None:
            raise refusal


@contextmanager
def _at_registry(*, first_answer: bool = False) -> Iterator[None]:
    """Whatever fails in the block came from the registry; from its first answer where nothing was asked before."""
    try:
        yield
    except WorkError as error:
        error.at_registry, error.first_answer = True, first_answer
        raise
