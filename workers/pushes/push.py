"""The work of a push: bring the image to the registry, and believe only what the registry confirms (rule 3)."""

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
from workers.jobs.executor import Finish
from workers.jobs.heartbeat import Heartbeat
from workers.pushes.client_pool import client_pool
from workers.pushes.locate import ImageSearch
from workers.pushes.plan import PushPlan, read_plan
from workers.pushes.transports.direct import DirectTransport, UploadLimits, find_pushed_digest
from workers.pushes.transports.engine import EngineTransport
from workers.pushes.transports.transport import PushedImage, Transport


class PushWork:
    """One push under a claim."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        # The heartbeat's thread writes the latest status to the row, at most once a second. Both attributes are
        # replaced as a whole, never changed.
        self._status = self._written_status = (Progress(), "")

    def write(self, session: Session) -> None:
        status = self._status
        if status != self._written_status:
            write_progress(session, self._claim, *status)
            event.listen(session, "after_commit", lambda _session: self._set_written(status), once=True)

    def _set_written(self, status: tuple[Progress, str]) -> None:
        self._written_status = status

    def do(self, heartbeat: Heartbeat) -> Finish:
        with database().reading() as session:
            plan = read_plan(session, self._claim)
        with client_pool().client(plan.registry, plan.credentials, heartbeat.cancel_token) as pooled:
            if not pooled.was_pinged_recently:
                self._show_step(heartbeat, f"Asks {plan.registry.registry_url} whether it takes the push.")
                with _registry_errors(first_response=True):
                    pooled.ping()
            digest = plan.build.manifest_digest
            if digest is not None and plan.transport == "direct":
                with _registry_errors():
                    pushed_digest = find_pushed_digest(
                        pooled.client, plan.path, plan.tags, {digest}, check_blobs=not plan.trusts_blobs
                    )
                if pushed_digest is not None:
                    self._set_written(self._status)  # the success follows at once
                    return self._finish(plan, PushedImage(pushed_digest))
            return self._push(plan, pooled.client, heartbeat)

    def _push(self, plan: PushPlan, client: RegistryClient, heartbeat: Heartbeat) -> Finish:
        search = ImageSearch(
            self._claim,
            plan.algorithm,
            plan.build,
            show_step=lambda message: self._show_step(heartbeat, message),
            stop=heartbeat.cancel_token,
            before_slow_steps=lambda: _check_may_push(plan, client),
        )
        with image_store().use(heartbeat.cancel_token) as use:
            transport, known = _transport(plan, client, search, use, heartbeat)
            with _registry_errors():
                pushed = transport.push(
                    plan.tags,
                    # The fence cannot reach into a registry, so it is checked before each tag is set.
                    before_tag=lambda _tag: heartbeat.hold_for(_tag_seconds()),
                    on_progress=lambda progress, message: self._show_progress(heartbeat, progress, message),
                )
        new_locations = [
            digest
            for digest, location in known.items()
            if pushed.outcomes.get(digest) == BlobOutcome.UPLOADED or (location is None and digest in pushed.outcomes)
        ]
        return self._finish(plan, pushed, search.remark, new_locations)

    def _finish(self, plan: PushPlan, pushed: PushedImage, remark: str = "", layers: Sequence[str] = ()) -> Finish:
        message = f"The registry confirmed {pushed.digest} under {' and '.join(plan.tags)}.{remark}{pushed.remark}"

        def finish(session: Session) -> None:
            write_success(session, self._claim, digest=pushed.digest, image=plan.image, message=message)
            if layers:
                record_blob_locations(session, plan.registry.id, layers, plan.path)

        return finish

    def _show_progress(self, heartbeat: Heartbeat, progress: Progress, message: str) -> None:
        if progress != self._status[0]:
            heartbeat.record_progress()
        self._status = (progress, message)

    def _show_step(self, heartbeat: Heartbeat, message: str) -> None:
        heartbeat.record_progress()
        self._status = (self._status[0], message)


def _transport(
    plan: PushPlan, client: RegistryClient, search: ImageSearch, use: StoreUse, heartbeat: Heartbeat
) -> tuple[Transport, Mapping[str, str | None]]:
    """Return the transport for this push, and the known location (or None) of each large layer."""
    if plan.transport == "engine":
        _check_may_push(plan, client)
        return (
            EngineTransport(
                client,
                plan.repository,
                plan.path,
                search.on_engine(use),
                verify_tls=plan.registry.verify_tls,
                ca_certificate=plan.registry.ca_certificate,
                proxy_url=plan.registry.proxy_url,
                stop=heartbeat.cancel_token,
            ),
            {},
        )
    manifest = search.in_store(use)
    large = list(dict.fromkeys(layer.digest for layer in manifest.layers if layer.size >= MIN_MOUNT_BYTES))
    with database().reading() as session:
        known = known_blob_locations(session, plan.registry.id, large)
    return (
        DirectTransport(
            client,
            plan.path,
            manifest,
            use,
            mount_from=known,
            limits=UploadLimits(
                per_push=settings().uploads_per_push,
                per_registry=settings().uploads_per_registry,
                lock_directory=settings().data_dir.absolute() / "locks",
                tag_seconds=_tag_seconds(),
            ),
            stop=heartbeat.cancel_token,
        ),
        {digest: known.get(digest) for digest in large},
    )


def _tag_seconds() -> float:
    """Return the time to set a tag, which must end while the lease still holds."""
    return settings().lease_seconds / 3


def _check_may_push(plan: PushPlan, client: RegistryClient) -> None:
    """Raise the registry's refusal, if any, before an image is pulled, built or compressed in vain."""
    with _registry_errors():
        refusal = client.push_refusal(plan.path)
        if refusal is not None:
            raise refusal


@contextmanager
def _registry_errors(*, first_response: bool = False) -> Iterator[None]:
    """Mark errors of the block as the registry's; with `first_response` as those of its first response."""
    try:
        yield
    except WorkError as error:
        error.at_registry, error.first_response = True, first_response
        raise
