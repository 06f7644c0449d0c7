"""A client of one registry: manifests, and checks before and after a push (OCI distribution spec)."""

import hashlib
from contextlib import suppress

from shared.cancellation import call_after
from shared.errors import ErrorClass, WorkError
from shared.net.http import Timeouts
from shared.net.origins import origin_of
from shared.net.responses import Response
from shared.registry.authentication import parse_challenges
from shared.registry.blobs import blob_size
from shared.registry.reference import is_digest, is_repository_path, is_tag
from shared.registry.session import RegistrySession

MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)
"""The media types of every manifest that an image's tag can name."""

_VERSION_HEADER = "Docker-Distribution-API-Version"


class RegistryClient(RegistrySession):
    """Reads and writes manifests, and checks what the credentials allow."""

    reads_with_push_scope = False
    """Whether reads request the right to push too: some token servers grant nothing for a repository that does not
    exist yet, unless the client may create it."""

    def ping(self) -> None:
        """Check that the host is a registry and accepts the credentials (distribution spec: determining support).

        Raises:
            WorkError: the host is not a registry (invalid), or the credentials are refused (auth).
        """
        response = self.send("GET", "/v2/", scope="")
        if response.status in {401, 403} and self.was_challenged:
            raise self.response_error(response, "logging in")
        if response.status == 429 or response.status >= 500:
            raise self.response_error(response, "checking that it is a registry")
        if not _is_registry_response(response):
            raise WorkError(ErrorClass.INVALID, self._not_a_registry(response))
        if response.status != 200:
            raise self.response_error(response, "logging in")

    def manifest_digest(self, repository_path: str, reference: str) -> str | None:
        response = self._read("HEAD", repository_path, reference)
        if response.status == 404:
            return None
        digest = response.headers.get("Docker-Content-Digest", "")
        if response.status == 200 and is_digest(digest):
            return digest
        if response.status not in {200, 405, 501}:
            raise self.response_error(response, f"looking for {repository_path}:{reference}")
        content = self.manifest(repository_path, reference)
        return None if content is None else _digest_of(content, "sha256")

    def manifest(self, repository_path: str, reference: str) -> bytes | None:
        response = self._read("GET", repository_path, reference)
        if response.status == 404:
            return None
        if response.status != 200:
            raise self.response_error(response, f"reading the manifest {repository_path}:{reference}")
        if not response.complete:
            raise WorkError(ErrorClass.INVALID, f"{self.host} answered with a manifest of more than 4 MiB.")
        return response.body

    def put_manifest(
        self, repository_path: str, reference: str, content: bytes, media_type: str, *, seconds: float = 60.0
    ) -> Response:
        """Put a manifest under a tag or its digest, and return the response whatever its status is.

        It ends within `seconds`, token requests included; if it takes longer, the client is aborted.
        """
        with call_after(seconds, self.abort):
            return self.send(
                "PUT",
                _manifest_path(repository_path, reference),
                scope=_scope(repository_path, "pull,push"),
                headers={"Content-Type": media_type},
                body=content,
                timeouts=Timeouts(read=seconds, total=None),
            )

    def confirm(self, repository_path: str, tag: str, digest: str) -> None:
        """Check that `tag` names the manifest `digest`, and that the registry really has that manifest.

        Raises:
            WorkError: the registry does not show (yet) what was pushed (transient), or the content under the digest
                is something else (invalid).
        """
        if not is_digest(digest):
            raise ValueError("a digest is sha256: and 64 hexadecimal digits")
        name = f"{repository_path}:{tag}"
        current = self.manifest_digest(repository_path, tag)
        if current is None:
            raise WorkError(ErrorClass.TRANSIENT, f"{self.host} does not show {name} after the push.")
        if current != digest:
            raise WorkError(
                ErrorClass.TRANSIENT,
                f"{self.host} shows {current} as {name}, but {digest} was pushed: another client pushed there.",
            )
        self.confirm_manifest(repository_path, digest)

    def confirm_manifest(self, repository_path: str, digest: str) -> None:
        """Check that the registry really has the manifest `digest`.

        Raises:
            WorkError: it does not have it (transient), or the content under the digest is something else (invalid).
        """
        content = self.manifest(repository_path, digest)
        if content is None:
            raise WorkError(ErrorClass.TRANSIENT, f"{self.host} does not have the manifest {digest} that it shows.")
        if _digest_of(content, digest.partition(":")[0]) != digest:
            raise WorkError(ErrorClass.INVALID, f"{self.host} answered a request for {digest} with other content.")

    def blob_exists(self, repository_path: str, digest: str) -> bool:
        return blob_size(self, repository_path, digest, self._read_scope(repository_path)) is not None

    def push_refusal(self, repository_path: str) -> WorkError | None:
        """Return the error if the credentials do not allow a push or the registry accepts none; None if they do.

        Opens an upload and cancels it.

        Raises:
            WorkError: any other error than a refusal.
        """
        scope = _scope(repository_path, "pull,push")
        try:
            response = self.send("POST", f"/v2/{_checked(repository_path)}/blobs/uploads/", scope=scope, body=b"")
            if response.status == 405:
                return WorkError(ErrorClass.AUTH, f"{self.host} accepts no pushes: it is read-only or a mirror.")
            if response.status != 202:
                raise self.response_error(response, f"opening an upload to {repository_path}")
            upload = self.own_path(response)
            if upload is not None:
                # Best effort: registries delete abandoned uploads themselves.
                with suppress(WorkError):
                    self.send("DELETE", upload, scope=scope)
        except WorkError as error:
            if error.error_class is not ErrorClass.AUTH:
                raise
            return error
        return None

    def pull_refusal(self, repository_path: str) -> WorkError | None:
        """Return the error if the credentials do not allow a pull; None if they do, or if there is no repository yet.

        Raises:
            WorkError: any other error than a refusal.
        """
        # Tags and not a manifest: Docker Hub limits how many manifests a client reads.
        try:
            response = self.send(
                "GET", f"/v2/{_checked(repository_path)}/tags/list?n=1", scope=_scope(repository_path, "pull")
            )
            if response.status not in {200, 404}:
                raise self.response_error(response, f"reading {repository_path}")
        except WorkError as error:
            if error.error_class is not ErrorClass.AUTH:
                raise
            return error
        return None

    def _read(self, method: str, repository_path: str, reference: str) -> Response:
        return self.send(
            method,
            _manifest_path(repository_path, reference),
            scope=self._read_scope(repository_path),
            headers={"Accept": MANIFEST_TYPES},
            follow=True,
        )

    def _read_scope(self, repository_path: str) -> str:
        return _scope(repository_path, "pull,push" if self.reads_with_push_scope else "pull")

    def _not_a_registry(self, response: Response) -> str:
        message = f"{self.host} is not a container registry: it answered {response.status} to a request for /v2/"
        if response.is_redirect:
            return f"{message}, a redirect to {origin_of(response.location) or 'an invalid URL'}."
        return f"{message}{' with an HTML page' if response.is_html else ''}."


def _is_registry_response(response: Response) -> bool:
    """Return whether a response to `/v2/` can be a registry's: by its header, its challenge, or an empty document."""
    if response.is_redirect or response.status == 404:
        return False
    if response.headers.get(_VERSION_HEADER, "").lower().startswith("registry/2"):
        return True
    if response.status == 401:
        return any(
            challenge.scheme in {"basic", "bearer"}
            for challenge in parse_challenges(response.headers.get("WWW-Authenticate", ""))
        )
    # The header is optional in newer versions of the spec; such registries answer with an empty document.
    return response.status == 200 and not response.is_html and response.body.strip() in {b"", b"{}", b"true"}


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


def _digest_of(content: bytes, algorithm: str) -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
