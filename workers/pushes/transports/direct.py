"""The direct transport: upload blobs from the image store unchanged to the registry (rule 7).

The order is that of distribution-spec 1.1 (pushing): blobs, then the manifest by digest, then the tags. Then it reads
back what the registry has under the tags.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from shared.cancellation import CancelToken
from shared.file_lock import poll_file_lock
from shared.net.responses import Response
from shared.pushes.progress import Progress
from shared.registry.client import RegistryClient
from shared.registry.upload import BlobOutcome
from workers.images.image_store import StoreUse
from workers.images.oci import OCI_MANIFEST, InvalidManifestError, Manifest, digest_of
from workers.pushes.transports.blobs import BlobUploads
from workers.pushes.transports.transport import PushedImage


def find_pushed_digest(
    client: RegistryClient, repository_path: str, tags: Sequence[str], digests: Collection[str], *, check_blobs: bool
) -> str | None:
    """Return the one of `digests` that the registry has under every tag, if any: then there is nothing to push.

    Registries have lost layers whose manifests they kept, and another push repairs that: with `check_blobs` the
    registry must have every blob too.

    Raises:
        WorkError: the registry refused a request, or failed.

    """
    first, *others = tags
    content = client.manifest(repository_path, first)
    if content is None or (digest := digest_of(content)) not in digests:
        return None
    if any(client.manifest_digest(repository_path, tag) != digest for tag in others):
        return None
    return digest if not check_blobs or _has_blobs(client, repository_path, content) else None


def _has_blobs(client: RegistryClient, repository_path: str, manifest: bytes) -> bool:
    try:
        blobs = Manifest.parse(manifest).blobs
    except InvalidManifestError:
        return False
    return all(client.blob_exists(repository_path, blob.digest) for blob in blobs)


@dataclass(frozen=True)
class UploadLimits:
    """Limits for concurrent uploads, and for the time to set a tag."""

    per_push: int = 4
    per_registry: int = 16
    """Concurrent uploads to one registry by all workers that share `lock_directory`."""
    lock_directory: Path | None = None
    """Directory for the lock files of upload slots; without it uploads are limited per push only."""
    tag_seconds: float = 20.0
    """Time to set a tag: less than the lease, so that no other worker has the claim by then."""


class DirectTransport:
    """Push an image of the store (a `Transport`)."""

    def __init__(
        self,
        client: RegistryClient,
        repository_path: str,
        manifest: Manifest,
        store: StoreUse,
        *,
        mount_from: Mapping[str, str] | None = None,
        limits: UploadLimits | None = None,
        stop: CancelToken,
    ) -> None:
        """`mount_from` has the repositories of the registry that may have a blob, by digest."""
        self._client = client
        self._path = repository_path
        self._manifest = manifest
        self._store = store
        self._mount_from = mount_from or {}
        self._limits = limits or UploadLimits()
        self._stop = stop

    def push(
        self,
        tags: tuple[str, ...],
        *,
        before_tag: Callable[[str], None],
        on_progress: Callable[[Progress, str], None],
    ) -> PushedImage:
        variants = {variant.descriptor.digest: variant for variant in self._media_type_variants()}
        pushed_digest = find_pushed_digest(self._client, self._path, tags, variants, check_blobs=True)
        if pushed_digest is not None:
            return self._pushed(variants[pushed_digest])
        uploads = BlobUploads(
            self._client,
            self._path,
            self._manifest,
            self._store,
            mount_from=self._mount_from,
            max_concurrent=self._limits.per_push,
            slot=self._slot,
            on_progress=on_progress,
            stop=self._stop,
        )
        put = self._put_by_digest(uploads)
        digest = put.descriptor.digest
        size, layers = sum(blob.size for blob in self._manifest.blobs), len({each.digest for each in put.layers})
        for tag in tags:
            if self._client.manifest_digest(self._path, tag) != digest:
                before_tag(tag)
                on_progress(Progress(size, size, layers, layers), f"Sets the tag {tag}.")
                self._put_tag(put, tag)
        for tag in tags:
            self._client.confirm(self._path, tag, digest)
        return self._pushed(put, uploads.outcomes)

    def _media_type_variants(self) -> list[Manifest]:
        """Return the manifest, and its variant with the other media types (OCI or Docker) if it has one."""
        try:
            is_oci = self._manifest.media_type == OCI_MANIFEST
            return [self._manifest, self._manifest.to_docker_schema2() if is_oci else self._manifest.to_oci()]
        except InvalidManifestError:
            return [self._manifest]

    def _put_by_digest(self, uploads: BlobUploads) -> Manifest:
        """Upload the blobs and put the manifest; return the variant that the registry accepted."""
        uploads.run(check_exists=True)
        response = self._put(self._manifest)
        if _lacks_a_blob(response):
            # It reported a blob that its garbage collection has removed: what it reports about blobs is not trusted.
            uploads.run(check_exists=False)
            response = self._put(self._manifest)
        if _is_accepted(response):
            return self._manifest
        if _may_reject_media_types(response):
            for other in self._media_type_variants()[1:]:
                other_response = self._put(other)
                if _is_accepted(other_response):
                    return other
                if other_response.status == 429 or other_response.status >= 500:
                    response = other_response  # it knows these media types, and failed temporarily
        raise self._client.response_error(response, f"taking the manifest of {self._path}")

    def _slot(self, check: Callable[[], None]) -> AbstractContextManager[None]:
        if self._limits.lock_directory is None:
            return nullcontext()
        return poll_file_lock(
            upload_slots(self._limits.lock_directory, self._client.host, self._limits.per_registry), check
        )

    def _put(self, manifest: Manifest) -> Response:
        return self._client.put_manifest(self._path, manifest.descriptor.digest, manifest.content, manifest.media_type)

    def _put_tag(self, manifest: Manifest, tag: str) -> None:
        response = self._client.put_manifest(
            self._path, tag, manifest.content, manifest.media_type, seconds=self._limits.tag_seconds
        )
        if not _is_accepted(response):
            raise self._client.response_error(response, f"setting the tag {self._path}:{tag}")

    def _pushed(self, manifest: Manifest, outcomes: Mapping[str, BlobOutcome] | None = None) -> PushedImage:
        remark = ""
        if manifest.media_type != self._manifest.media_type:
            whose = "the OCI's" if manifest.media_type == OCI_MANIFEST else "Docker's"
            remark = (
                f" The registry knows {whose} media types only, so the digest differs from that in other registries."
            )
        return PushedImage(manifest.descriptor.digest, remark, outcomes or {})


def _is_accepted(response: Response) -> bool:
    return response.status in {200, 201, 202}


def _lacks_a_blob(response: Response) -> bool:
    return response.status in {400, 404} and b"BLOB_UNKNOWN" in response.body  # or MANIFEST_BLOB_UNKNOWN


def _may_reject_media_types(response: Response) -> bool:
    """Return whether a registry may have rejected the media types of the manifest: the responses differ."""
    return response.status == 415 or (
        response.status in {400, 404, 405, 422}
        and (b"MANIFEST_INVALID" in response.body or b"UNSUPPORTED" in response.body)
    )


def upload_slots(directory: Path, host: str, number: int) -> list[Path]:
    """Return the lock files that limit the concurrent uploads of this machine to one registry."""
    name = hashlib.sha256(host.encode()).hexdigest()[:16]
    return [directory / f"uploads-{name}-{slot}.lock" for slot in range(number)]
