"""Longshore's own push: blobs from the image store, as they are, straight into the registry (rule 7).

The order of distribution-spec 1.1 (pushing): blobs, then the manifest by its digest, then the tags, then a look at
what the registry shows.

Places for uploads to one registry, among all workers of this machine: each a file that whoever has it holds locked.

The kernel frees a place with its process, however that ends.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from shared.cancellation import CancelToken
from shared.file_lock import poll_file_lock
from shared.net.http import Response
from shared.registry.client import RegistryClient
from shared.registry.upload import BlobOutcome
from workers.images.image_store import StoreUse
from workers.images.oci import OCI_MANIFEST, InvalidManifestError, Manifest, digest_of
from workers.pushes.transports.blobs import BlobUploads
from workers.pushes.transports.transport import PushedImage, PushProgress


def registry_manifest(
    client: RegistryClient, repository_path: str, tags: Sequence[str], digests: Collection[str], *, look_at_blobs: bool
) -> str | None:
    """Which of these digests the registry has under every tag, if any: then nothing is to be pushed.

    Registries have lost layers whose manifests they kept, and a push again is what mends that: with `look_at_blobs` it
    is asked for each of them too.

    Raises:
        WorkError: the registry said something else.
    """
    first, *others = tags
    content = client.manifest(repository_path, first)
    if content is None or (digest := digest_of(content)) not in digests:
        return None
    if any(client.manifest_digest(repository_path, tag) != digest for tag in others):
        return None
    return digest if not look_at_blobs or _has_blobs(client, repository_path, content) else None


def _has_blobs(client: RegistryClient, repository_path: str, manifest: bytes) -> bool:
    try:
        blobs = Manifest.parse(manifest).blobs
    except InvalidManifestError:
        return False
    return all(client.blob_exists(repository_path, blob.digest) for blob in blobs)


@dataclass(frozen=True)
class UploadLimits:
    """How much at once, and how long a tag may take."""

    per_push: int = 4
    """Blobs of one push."""
    per_registry: int = 16
    """Blobs of all pushes to one registry by workers that share `lock_directory`."""
    lock_directory: Path | None = None
    """A directory for the places at registries; without one nothing is shared."""
    tag_seconds: float = 20.0
    """Within which the putting of a tag ends: before the lease does, so that nobody else holds it by then."""


class DirectTransport:
    """Pushes an image of the store (a `Transport`)."""

    def __init__(
        self,
        client: RegistryClient,
        repository_path: str,
        manifest: Manifest,
        blobs: StoreUse,
        *,
        mount_from: Mapping[str, str] | None = None,
        limits: UploadLimits | None = None,
        stop: CancelToken,
    ) -> None:
        """`mount_from` says, by digest, in which repositories of the registry blobs may be already."""
        self._client = client
        self._path = repository_path
        self._manifest = manifest
        self._blobs = blobs
        self._mount_from = mount_from or {}
        self._limits = limits or UploadLimits()
        self._stop = stop

    def push(
        self,
        tags: tuple[str, ...],
        *,
        before_tag: Callable[[str], None],
        on_progress: Callable[[PushProgress, str], None],
    ) -> PushedImage:
        """Push the image under every tag, and have the registry confirm each.

        Raises:
            Stopped: the stop was asked for.
            WorkError: what the registry or the store said, classified.
        """
        spellings = {spelling.descriptor.digest: spelling for spelling in self._media_type_variants()}
        shown = registry_manifest(self._client, self._path, tags, spellings, look_at_blobs=True)
        if shown is not None:
            return self._pushed(spellings[shown])
        uploads = self._uploads(on_progress)
        put = self._put_by_digest(uploads)
        digest = put.descriptor.digest
        for tag in tags:
            if self._client.manifest_digest(self._path, tag) != digest:
                before_tag(tag)
                on_progress(self._all_done(), f"Sets the tag {tag}.")
                self._put_tag(put, tag)
        for tag in tags:
            self._client.confirm(self._path, tag, digest)
        return self._pushed(put, uploads.placed)

    def _media_type_variants(self) -> list[Manifest]:
        """The image as it is, and in the other vocabulary where that can tell it."""
        try:
            return [self._manifest, _in_other_media_types(self._manifest)]
        except InvalidManifestError:
            return [self._manifest]

    def _put_by_digest(self, uploads: BlobUploads) -> Manifest:
        uploads.run(look=True)
        answer = self._put(self._manifest)
        if _lacks_a_blob(answer):
            # It said that it had a blob which its garbage collection took: nothing that it says of them is believed.
            uploads.run(look=False)
            answer = self._put(self._manifest)
        if _is_taken(answer):
            return self._manifest
        if _knows_other_words(answer):
            for other in self._media_type_variants()[1:]:
                again = self._put(other)
                if _is_taken(again):
                    return other
                if again.status == 429 or again.status >= 500:
                    answer = again  # it knows these words, and could not just now
        raise self._client.response_error(answer, f"taking the manifest of {self._path}")

    def _uploads(self, on_progress: Callable[[PushProgress, str], None]) -> BlobUploads:
        return BlobUploads(
            self._client,
            self._path,
            self._manifest,
            self._blobs,
            mount_from=self._mount_from,
            at_once=self._limits.per_push,
            slot=self._slot,
            on_progress=on_progress,
            stop=self._stop,
        )

    def _slot(self, check: Callable[[], None]) -> AbstractContextManager[None]:
        if self._limits.lock_directory is None:
            return nullcontext()
        slots = upload_slots(self._limits.lock_directory, self._client.host, self._limits.per_registry)
        return poll_file_lock(slots, check)

    def _put(self, manifest: Manifest) -> Response:
        return self._client.put_manifest(self._path, manifest.descriptor.digest, manifest.content, manifest.media_type)

    def _put_tag(self, manifest: Manifest, tag: str) -> None:
        answer = self._client.put_manifest(
            self._path, tag, manifest.content, manifest.media_type, seconds=self._limits.tag_seconds
        )
        if not _is_taken(answer):
            raise self._client.response_error(answer, f"setting the tag {self._path}:{tag}")

    def _pushed(self, manifest: Manifest, placed: Mapping[str, BlobOutcome] | None = None) -> PushedImage:
        if manifest.media_type == self._manifest.media_type:
            return PushedImage(manifest.descriptor.digest, placed=placed or {})
        whose = "the OCI's" if manifest.media_type == OCI_MANIFEST else "Docker's"
        return PushedImage(
            manifest.descriptor.digest,
            f" The registry knows {whose} media types only, so the digest differs from that in other registries.",
            placed or {},
        )

    def _all_done(self) -> PushProgress:
        layers = {layer.digest for layer in self._manifest.layers}
        size = sum(blob.size for blob in self._manifest.blobs)
        return PushProgress(size, size, len(layers), len(layers))


def _in_other_media_types(manifest: Manifest) -> Manifest:
    return manifest.to_docker_schema2() if manifest.media_type == OCI_MANIFEST else manifest.to_oci()


def _is_taken(answer: Response) -> bool:
    return answer.status in {200, 201, 202}


def _lacks_a_blob(answer: Response) -> bool:
    said = answer.body.decode("utf-8", "replace")
    return answer.status in {400, 404} and ("MANIFEST_BLOB_UNKNOWN" in said or "BLOB_UNKNOWN" in said)


def _knows_other_words(answer: Response) -> bool:
    """Whether a refusal can be one of the vocabulary: registries say so in several ways."""
    said = answer.body.decode("utf-8", "replace")
    return answer.status == 415 or (
        answer.status in {400, 404, 405, 422} and ("MANIFEST_INVALID" in said or "UNSUPPORTED" in said)
    )


def upload_slots(directory: Path, host: str, number: int) -> list[Path]:
    """Return the lock files for that many concurrent uploads to one registry by all workers of this machine."""
    name = hashlib.sha256(host.encode()).hexdigest()[:16]
    return [directory / f"uploads-{name}-{slot}.lock" for slot in range(number)]
