"""The client against distribution's own registry: with a password file, with a token server, with TLS."""

import hashlib
import json
import socket
import ssl
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dev.services.certificates import write_server_certificate
from dev.services.registry import PrivateRegistry
from shared.errors import ErrorClass, WorkError
from shared.registries.access import RegistryCheck, check_registry
from shared.registry.address import RegistryAddress
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture
def repository() -> str:
    return f"team/{uuid.uuid4().hex}"


def client_of(registry: PrivateRegistry, user: str, *, password: str | None = None, **options: Any) -> RegistryClient:
    credentials = Credentials(user, password or registry.users[user])
    return RegistryClient(RegistryAddress.parse(registry.host), credentials, **options)


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def push_image(client: RegistryClient, repository: str, tag: str) -> str:
    """Push an image without layers with the client's own session, and return the digest of its manifest."""
    scope, configuration = f"repository:{repository}:pull,push", b"{}"
    upload = client.own_path(client.send("POST", f"/v2/{repository}/blobs/uploads/", scope=scope, body=b""))
    done = client.send("PUT", f"{upload}&digest={digest_of(configuration)}", scope=scope, body=configuration)
    assert done.status == 201
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": len(configuration),
                "digest": digest_of(configuration),
            },
            "layers": [],
        }
    ).encode()
    headers = {"Content-Type": MANIFEST_TYPE}
    response = client.send("PUT", f"/v2/{repository}/manifests/{tag}", scope=scope, headers=headers, body=manifest)
    assert response.status == 201
    return digest_of(manifest)


def result(check: RegistryCheck) -> tuple[Any, Any, Any, Any]:
    return check.reachable, check.authenticated, check.can_push, check.can_pull


def test_a_pushed_image_is_confirmed_by_its_digest(password_registry: PrivateRegistry, repository: str) -> None:
    with client_of(password_registry, "pusher") as client:
        assert client.manifest_digest(repository, "1.0.0") is None
        digest = push_image(client, repository, "1.0.0")
        assert client.manifest_digest(repository, "1.0.0") == digest
        assert client.manifest_digest(repository, digest) == digest
        client.confirm(repository, "1.0.0", digest)
        with pytest.raises(WorkError, match="does not show") as failure:
            client.confirm(repository, "2.0.0", digest)
        assert failure.value.error_class is ErrorClass.TRANSIENT
        with pytest.raises(WorkError, match="but sha256:0000"):
            client.confirm(repository, "1.0.0", "sha256:" + "0" * 64)


def test_the_right_password_may_push_and_pull(password_registry: PrivateRegistry, repository: str) -> None:
    with client_of(password_registry, "pusher") as client:
        check = check_registry(client, repository)
    assert result(check) == (True, True, True, True)


def test_the_permission_check_leaves_no_upload_behind(
    password_registry: PrivateRegistry, repository: str, place: Path
) -> None:
    with client_of(password_registry, "pusher") as client:
        assert client.push_refusal(repository) is None
    uploads = place / "password" / "storage" / "docker" / "registry" / "v2" / "repositories" / repository / "_uploads"
    # This registry keeps an upload's directory; when it was begun stands there for as long as it can be gone on with.
    (upload,) = uploads.iterdir()
    assert not (upload / "startedat").exists()


def test_the_wrong_password_is_refused(password_registry: PrivateRegistry, repository: str) -> None:
    with client_of(password_registry, "pusher", password="hunter2") as client:
        with pytest.raises(WorkError) as failure:
            client.ping()
        check = check_registry(client, repository)
    assert failure.value.error_class is ErrorClass.AUTH
    assert result(check) == (True, False, False, False)
    assert "hunter2" not in check.message + failure.value.message


@pytest.mark.parametrize(("user", "may_push"), [("writer", True), ("reader", False)])
def test_tokens_decide_who_may_push(
    registry_with_tokens: PrivateRegistry, repository: str, user: str, may_push: bool
) -> None:
    with client_of(registry_with_tokens, user) as client:
        check = check_registry(client, repository)
    assert result(check) == (True, True, may_push, True)


def test_the_token_server_refuses_the_wrong_password(registry_with_tokens: PrivateRegistry, repository: str) -> None:
    with client_of(registry_with_tokens, "writer", password="hunter2") as client:
        check = check_registry(client, repository)
    assert result(check) == (True, False, False, False)
    assert "hunter2" not in check.message


def test_a_push_with_one_token_is_confirmed_with_another(
    registry_with_tokens: PrivateRegistry, repository: str
) -> None:
    with client_of(registry_with_tokens, "writer") as client:
        digest = push_image(client, repository, "1.0.0")
    with client_of(registry_with_tokens, "reader") as client:
        client.confirm(repository, "1.0.0", digest)  # raises where it is not so
        assert client.manifest_digest(repository, "1.0.0") == digest


def test_an_untrusted_certificate_says_what_to_do(tls_registry: PrivateRegistry, repository: str) -> None:
    with client_of(tls_registry, "pusher") as client, pytest.raises(WorkError, match="ca_certificate") as failure:
        client.ping()
    assert failure.value.error_class is ErrorClass.INVALID
    with client_of(tls_registry, "pusher") as client:
        assert result(check_registry(client, repository)) == (False, False, False, False)


@pytest.mark.parametrize("trust", ["authority", "nobody"])
def test_a_certificate_is_trusted_by_its_authority_or_not_verified(
    tls_registry: PrivateRegistry, repository: str, trust: str
) -> None:
    options = {"ca_certificate": tls_registry.authority_pem} if trust == "authority" else {"verify_tls": False}
    with client_of(tls_registry, "pusher", **options) as client:
        assert result(check_registry(client, repository)) == (True, True, True, True)


def test_a_certificate_for_another_host_is_not_accepted(place: Path) -> None:
    certificate = write_server_certificate(place / "another")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    with socket.create_server(("127.0.0.2", 0)) as listener:

        def shake_hands() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=shake_hands)
        thread.start()
        address = RegistryAddress.parse(f"127.0.0.2:{listener.getsockname()[1]}")
        with (
            RegistryClient(address, ca_certificate=certificate.authority_pem) as client,
            pytest.raises(WorkError, match="is for another host") as failure,
        ):
            client.ping()
        thread.join()
    assert failure.value.error_class is ErrorClass.INVALID


def test_a_registry_with_tls_is_not_contacted_over_plain_http(tls_registry: PrivateRegistry) -> None:
    address = RegistryAddress.parse(tls_registry.host, plain_http=True)
    with RegistryClient(address) as client, pytest.raises(WorkError) as failure:
        client.ping()
    assert failure.value.error_class is ErrorClass.INVALID
