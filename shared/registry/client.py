"""A client of one registry: what Longshore asks it before and after a push (OCI distribution spec)."""

import hashlib
from collections.abc import Callable
from contextlib import suppress

from shared.errors import ErrorClass, WorkError
from shared.net.http import Response, Timeouts
from shared.net.origins import origin_of
from shared.registry.authentication import parse_challenges
from shared.registry.blobs import blob_size
from shared.registry.reference import is_digest, is_repository_path, is_tag
from shared.registry.session import REDIRECTS, RegistrySession

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)
"""Every kind of manifest that an image's tag can name."""

_VERSION_HEADER = "Docker-Distribution-API-Version"


class RegistryClient(RegistrySession):
    """Asks one registry about repositories and manifests in it; made, closed and bounded as a `RegistrySession`."""

    pushes = False
    """Whether it reads with the right to push too: there are token servers that grant nothing for a repository which
    does not exist yet, unless it may be made."""

    def ping(self) -> None:
        """Make sure that a registry is there and takes the credentials (distribution spec: determining support).

        Raises:
            WorkError: `invalid` where something else than a registry answers, `auth` where the credentials are refused.
        """
        answer = self.send("GET", "/v2/", scope="")
        if answer.status in {401, 403} and self.asked_for_credentials:
            raise self.failure(answer, "logging in")
        if answer.status == 429 or answer.status >= 500:
            raise self.failure(answer, "asking whether it is a registry")
        if not _is_a_registrys(answer):
            raise WorkError(ErrorClass.INVALID, self._no_registry(answer))
        if answer.status != 200:
            raise self.failure(answer, "logging in")

    def manifest_digest(self, repository_path: str, reference: str) -> str | None:
        """The digest of the manifest under a tag or digest; `None` where the registry has none."""
        path = _manifest_path(repository_path, reference)
        answer = self._read("HEAD", path, repository_path)
        if answer.status == 404:
            return None
        digest = answer.headers.get("Docker-Content-Digest", "")
        if answer.status == 200 and is_digest(digest):
            return digest
        if answer.status not in {200, 405, 501}:
            raise self.failure(answer, f"looking for {repository_path}:{reference}")
        body = self.manifest(repository_path, reference)
        return None if body is None else _digest_of(body, "sha256")

    def confirm(self, repository_path: str, tag: str, digest: str) -> None:
        """Make sure that `tag` names the manifest `digest`, and that the registry really has that manifest.

        Raises:
            WorkError: `transient` where the registry does not show (yet) what was pushed; `invalid` where what it
                has under the digest is something else.
        """
        if not is_digest(digest):
            raise ValueError("a digest is sha256: and 64 hexadecimal digits")
        name = f"{repository_path}:{tag}"
        shown = self.manifest_digest(repository_path, tag)
        if shown is None:
            raise WorkError(ErrorClass.TRANSIENT, f"{self.host} does not show {name} after the push.")
        if shown != digest:
            raise WorkError(
                ErrorClass.TRANSIENT,
                f"{self.host} shows {shown} as {name}, but {digest} was pushed: somebody else pushed there.",
            )
        self.confirm_manifest(repository_path, digest)

    def blob_exists(self, repository_path: str, digest: str) -> bool:
        """Whether the repository has a blob, by its own word."""
        return blob_size(self, repository_path, digest, self._reading_scope(repository_path)) is not None

    def confirm_manifest(self, repository_path: str, digest: str) -> None:
        """Make sure that the registry really has the manifest `digest`.

        Raises:
            WorkError: `transient` where it does not; `invalid` where what it has is something else.
        """
        body = self.manifest(repository_path, digest)
        if body is None:
            raise WorkError(ErrorClass.TRANSIENT, f"{self.host} does not have the manifest {digest} that it shows.")
        if _digest_of(body, digest.partition(":")[0]) != digest:
            raise WorkError(
                ErrorClass.INVALID,
                f"{self.host} answers with something else than {digest} when asked for it.",
            )

    def push_refusal(self, repository_path: str) -> WorkError | None:
        """Why the credentials may not push there, or that the registry takes no pushes at all; `None` if they may.

        An upload is opened and given up again.
        """
        return _refusal(lambda: self._open_and_give_up_upload(repository_path))

    def pull_refusal(self, repository_path: str) -> WorkError | None:
        """Why the credentials may not pull from there; `None` if they may.

        A repository that does not exist yet may be pulled.
        """
        return _refusal(lambda: self._list_one_tag(repository_path))

    def _open_and_give_up_upload(self, repository_path: str) -> None:
        scope = _scope(repository_path, "pull,push")
        opened = self.send("POST", f"/v2/{_checked(repository_path)}/blobs/uploads/", scope=scope, body=b"")
        if opened.status == 405:
            raise WorkError(ErrorClass.AUTH, f"{self.host} takes no pushes: it is read-only or a mirror.")
        if opened.status != 202:
            raise self.failure(opened, f"opening an upload to {repository_path}")
        upload = self.own_path(opened)
        if upload is not None:
            # Best effort: registries remove forgotten uploads themselves.
            with suppress(WorkError):
                self.send("DELETE", upload, scope=scope)

    def _list_one_tag(self, repository_path: str) -> None:
        # Tags and not a manifest: Docker Hub counts manifests that are read against a limit.
        path = f"/v2/{_checked(repository_path)}/tags/list?n=1"
        answer = self.send("GET", path, scope=_scope(repository_path, "pull"))
        if answer.status not in {200, 404}:
            raise self.failure(answer, f"reading {repository_path}")

    def _read(self, method: str, path: str, repository_path: str) -> Response:
        scope = self._reading_scope(repository_path)
        return self.send(method, path, scope=scope, headers={"Accept": MANIFEST_TYPES}, follow=True)

    def _reading_scope(self, repository_path: str) -> str:
        return _scope(repository_path, "pull,push" if self.pushes else "pull")

    def put_manifest(
        self, repository_path: str, reference: str, content: bytes, media_type: str, *, seconds: float = 60.0
    ) -> Response:
        """Put a manifest under a tag or its digest; whatever the registry answers is handed back.

        It ends within so many seconds, however slowly the registry and its token server answer.
        """
        with self.ending_within(seconds):
            return self.send(
                "PUT",
                _manifest_path(repository_path, reference),
                scope=_scope(repository_path, "pull,push"),
                headers={"Content-Type": media_type},
                body=content,
                limits=Timeouts(read=seconds, whole=None),
            )

    def manifest(self, repository_path: str, reference: str) -> bytes | None:
        """The bytes of the manifest under a tag or digest; None where the registry has none."""
        answer = self._read("GET", _manifest_path(repository_path, reference), repository_path)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self.failure(answer, f"reading the manifest {repository_path}:{reference}")
        if not answer.complete:
            raise WorkError(ErrorClass.INVALID, f"{self.host} answered with a manifest of more than 4 MiB.")
        return answer.body

    def _no_registry(self, answer: Response) -> str:
        sentence = f"{self.host} is no container registry: it answered {answer.status} when asked for /v2/"
        if answer.status in REDIRECTS:
            return f"{sentence}, a redirect to {origin_of(answer.location) or 'somewhere else'}."
        return f"{sentence}{' with a page for people' if answer.is_html else ''}."


def _is_a_registrys(answer: Response) -> bool:
    """Whether a registry can have answered so to `/v2/`: it says so, asks who we are, or says nothing, in JSON."""
    if answer.status in REDIRECTS or answer.status == 404:
        return False
    if answer.headers.get(_VERSION_HEADER, "").lower().startswith("registry/2"):
        return True
    if answer.status == 401:
        return any(
            each.scheme in {"basic", "bearer"} for each in parse_challenges(answer.headers.get("WWW-Authenticate", ""))
        )
    # Newer versions of the spec make the header optional; such a registry answers an empty document.
    return answer.status == 200 and not answer.is_html and answer.body.strip() in {b"", b"{}", b"true"}


def _manifest_path(repository_path: str, reference: str) -> str:
    if not is_tag(reference) and not is_digest(reference):
        raise ValueError("a manifest is named by a tag or a digest")
    return f"/v2/{_checked(repository_path)}/manifests/{reference}"


def _checked(repository_path: str) -> str:
    if not is_repository_path(repository_path):
        raise ValueError("a repository's path is lower-case names with slashes between them")
    return repository_path


def _scope(repository_path: str, actions: str) -> str:
    return f"repository:{repository_path}:{actions}"


def _digest_of(body: bytes, algorithm: str) -> str:
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


def _refusal(attempt: Callable[[], None]) -> WorkError | None:
    """The refusal that an attempt met; any other failure says nothing of what is allowed, and is raised."""
    try:
        attempt()
    except WorkError as error:
        if error.error_class is not ErrorClass.AUTH:
            raise
        return error
    return None
