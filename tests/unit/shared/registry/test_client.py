import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.net.http import MAX_BODY_BYTES, Timeouts
from shared.registry.address import RegistryAddress
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from tests.unit.shared.registry.fake_registry import VERSION, FakeRegistry, Reply, Request, Respond, fake_registry

CREDENTIALS = Credentials("pusher", "hunter2")
BASIC = {"WWW-Authenticate": 'Basic realm="x"', **VERSION}
MANIFEST = b'{"schemaVersion": 2}'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
OTHER = "sha256:" + "0" * 64


def client_of(server: FakeRegistry, credentials: Credentials | None = CREDENTIALS, **options: Any) -> RegistryClient:
    return RegistryClient(RegistryAddress.parse(server.url), credentials, **options)


def asking_for_basic(reply: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
    def respond(request: Request) -> Reply:
        return reply(request) if request.authorization else Reply(401, headers=BASIC)

    return respond


def failing(reply: Respond, ask: Callable[[Any], Any] = lambda client: client.ping()) -> WorkError:
    with fake_registry(reply) as server, client_of(server) as client, pytest.raises(WorkError) as failure:
        ask(client)
    assert server.host in failure.value.message
    assert "hunter2" not in failure.value.message
    return failure.value


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"{}", VERSION),
        Reply(200, b"{}"),
        Reply(200, b""),
        asking_for_basic(lambda _: Reply(200, b"{}")),
    ],
)
def test_a_registry_is_recognized(reply: Reply) -> None:
    with fake_registry(reply) as server, client_of(server) as client:
        client.ping()
    assert server.requests[-1].path == "/v2/"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(404, b'{"error": {"code": 5004}}'),
        Reply(404, b"{}", VERSION),
        Reply(200, b"<html>welcome</html>", {"Content-Type": "text/html"}),
        Reply(200, b'{"some": "service"}', {"Content-Type": "application/json"}),
        Reply(401, b"who are you"),
        Reply(401, b"", {"WWW-Authenticate": "Negotiate"}),
        Reply(302, b"", {"Location": "https://login.example/?from=v2"}),
        Reply(302, b"", {"Location": "http://[bad"}),
        Reply(403, b"<html>go away</html>"),
    ],
)
def test_a_server_that_is_not_a_registry_is_recognized(reply: Reply) -> None:
    error = failing(reply)
    assert error.error_class is ErrorClass.INVALID
    assert "is not a container registry" in error.message


def test_a_server_that_does_not_use_http_is_not_a_registry() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"-ERR unknown command\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        address = RegistryAddress.parse(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with RegistryClient(address) as client, pytest.raises(WorkError, match="does not answer in HTTP") as failure:
            client.ping()
        thread.join()
    assert failure.value.error_class is ErrorClass.INVALID


@pytest.mark.parametrize(
    ("reply", "expected", "wait"),
    [
        (Reply(429, b"", {"Retry-After": "7"}), ErrorClass.THROTTLED, 7.0),
        (Reply(503, b"", {"Retry-After": "3"}), ErrorClass.TRANSIENT, 3.0),
        (Reply(502, b"<html>bad gateway</html>"), ErrorClass.TRANSIENT, None),
        (Reply(401, b"", BASIC), ErrorClass.AUTH, None),
        (asking_for_basic(lambda _: Reply(403, b"", VERSION)), ErrorClass.AUTH, None),
    ],
)
def test_the_class_of_an_error_response(reply: Reply, expected: ErrorClass, wait: float | None) -> None:
    error = failing(reply)
    assert (error.error_class, error.retry_after) == (expected, wait)


def test_a_wrong_password_is_sent_once_per_request() -> None:
    with fake_registry(Reply(401, headers=BASIC)) as server, client_of(server) as client:
        with pytest.raises(WorkError):
            client.ping()
        assert client.push_refusal("a/b") is not None
    assert [bool(request.authorization) for request in server.requests] == [False, True, True]


def test_a_password_in_a_response_is_not_repeated_in_the_message() -> None:
    def echo(request: Request) -> Reply:
        return Reply(403, f"refused {request.authorization} of hunter2".encode(), VERSION)

    message = failing(asking_for_basic(echo)).message
    assert "refused Basic *** of ***" in message


def test_a_refused_connection_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        RegistryClient(RegistryAddress.parse(f"http://127.0.0.1:{port}")) as client,
        pytest.raises(WorkError) as failure,
    ):
        client.ping()
    assert failure.value.error_class is ErrorClass.TRANSIENT
    assert "refused" in failure.value.message


def test_a_broken_connection_is_transient() -> None:
    error = failing(Reply(200, b"", {"Content-Length": "1000", "Connection": "close", **VERSION}))
    assert error.error_class is ErrorClass.TRANSIENT
    assert "closed the connection" in error.message


def test_a_connection_that_the_server_closed_is_opened_again() -> None:
    with fake_registry(Reply(200, b"{}", {"Connection": "close"})) as server, client_of(server) as client:
        client.ping()
        client.ping()
    assert len(server.requests) == 2


def manifests(**by_method: Reply | dict[str, Reply]) -> Callable[[Request], Reply]:
    """Return a registry that replies to HEAD and GET by the requested reference."""

    def respond(request: Request) -> Reply:
        reference = request.path.rpartition("/")[2]
        reply = by_method[request.method.lower()]
        return reply.get("digest" if ":" in reference else "tag", Reply(404)) if isinstance(reply, dict) else reply

    return respond


def head_reply(digest: str) -> Reply:
    return Reply(200, headers={"Docker-Content-Digest": digest, "Content-Length": "20"})


@pytest.mark.parametrize(
    ("respond", "digest"),
    [
        (manifests(head=head_reply(DIGEST)), DIGEST),
        (manifests(head=Reply(404)), None),
        (manifests(head=Reply(200), get=Reply(200, MANIFEST)), DIGEST),
        (manifests(head=head_reply("sha256:short"), get=Reply(200, MANIFEST)), DIGEST),
        (manifests(head=Reply(405), get=Reply(200, MANIFEST)), DIGEST),
        (manifests(head=Reply(405), get=Reply(404)), None),
    ],
)
def test_the_digest_of_a_tag(respond: Callable[[Any], Any], digest: str | None) -> None:
    with fake_registry(respond) as server, client_of(server) as client:
        assert client.manifest_digest("a/b", "1.0.0") == digest
    assert "application/vnd.oci.image.index.v1+json" in server.requests[0].headers["accept"]


def test_a_push_is_confirmed_by_the_content_of_the_manifest() -> None:
    respond = manifests(head=head_reply(DIGEST), get=Reply(200, MANIFEST))
    with fake_registry(respond) as server, client_of(server) as client:
        client.confirm("a/b", "1.0.0", DIGEST)
    assert server.requests[-1].path == f"/v2/a/b/manifests/{DIGEST}"


@pytest.mark.parametrize(
    ("respond", "expected"),
    [
        (manifests(head=Reply(404)), ErrorClass.TRANSIENT),
        (manifests(head=head_reply(OTHER)), ErrorClass.TRANSIENT),
        (manifests(head=head_reply(DIGEST), get={"tag": Reply(200, MANIFEST)}), ErrorClass.TRANSIENT),
        (manifests(head=head_reply(DIGEST), get=Reply(200, b'{"lying": true}')), ErrorClass.INVALID),
        (manifests(head=head_reply(DIGEST), get=Reply(200, b"x" * (MAX_BODY_BYTES + 1))), ErrorClass.INVALID),
        (manifests(head=head_reply(DIGEST), get=Reply(500)), ErrorClass.TRANSIENT),
    ],
)
def test_a_push_is_not_confirmed_if_the_registry_shows_something_else(
    respond: Callable[[Any], Any], expected: ErrorClass
) -> None:
    assert failing(respond, lambda client: client.confirm("a/b", "1.0.0", DIGEST)).error_class is expected


@contextmanager
def redirecting(*, status: int = 307, method: str = "get") -> Iterator[tuple[Any, FakeRegistry, FakeRegistry]]:
    """Run a registry that requires a password and redirects reads to a storage on another origin."""
    with fake_registry(manifests(head=head_reply(DIGEST), get=Reply(200, MANIFEST))) as store:
        moved = Reply(status, headers={"Location": f"{store.url}/store/{DIGEST}"})
        here = {"head": head_reply(DIGEST), "get": Reply(200, MANIFEST), method: moved}
        with fake_registry(asking_for_basic(manifests(**here))) as server, client_of(server) as client:
            yield client, server, store


@pytest.mark.parametrize(("status", "method"), [(307, "get"), (302, "head"), (303, "head"), (308, "get")])
def test_a_redirect_to_another_host_is_followed_without_the_credentials(status: int, method: str) -> None:
    with redirecting(status=status, method=method) as (client, server, store):
        client.confirm("a/b", "1.0.0", DIGEST)
    assert [request.method.lower() for request in store.requests] == [method]
    assert [request.authorization for request in store.requests] == [None]
    assert server.requests[-1].authorization == CREDENTIALS.basic


def test_a_redirect_within_the_registry_keeps_the_credentials() -> None:
    def respond(request: Request) -> Reply:
        if request.path.startswith("/v2/a/"):
            return Reply(302, headers={"Location": "/elsewhere/x"})
        return Reply(200, MANIFEST)

    with fake_registry(asking_for_basic(respond)) as server, client_of(server) as client:
        assert client.manifest_digest("a/b", "1.0.0") == DIGEST
    assert server.requests[-1].path == "/elsewhere/x"
    assert server.requests[-1].authorization == CREDENTIALS.basic


@pytest.mark.parametrize("location", ["http://store.example/x", "ftp://store.example/x", "https://169.254.0.1/x"])
def test_a_redirect_to_a_forbidden_address_is_not_followed(location: str) -> None:
    respond = manifests(head=Reply(307, headers={"Location": location}))
    error = failing(respond, lambda client: client.manifest_digest("a/b", "1"))
    assert error.error_class is ErrorClass.INVALID
    assert "not an allowed address" in error.message


def test_a_redirect_loop_ends() -> None:
    respond = manifests(head=Reply(307, headers={"Location": "/v2/a/b/manifests/1"}))
    assert "too often" in failing(respond, lambda client: client.manifest_digest("a/b", "1")).message


@pytest.mark.parametrize("location", ["/v2/a/b/blobs/uploads/id?_state=s", "{url}/v2/a/b/blobs/uploads/id?_state=s"])
def test_the_upload_that_tests_the_permission_is_cancelled(location: str) -> None:
    def respond(_request: Request) -> Reply:
        return Reply(202, headers={"Location": location.format(url=server.url)})

    with fake_registry(respond) as server, client_of(server) as client:
        assert client.push_refusal("a/b") is None
    assert [(request.method, request.path) for request in server.requests] == [
        ("POST", "/v2/a/b/blobs/uploads/"),
        ("DELETE", "/v2/a/b/blobs/uploads/id?_state=s"),
    ]


def test_an_upload_on_another_host_is_not_cancelled() -> None:
    with fake_registry(Reply(204)) as foreign:
        elsewhere = Reply(202, headers={"Location": f"{foreign.url}/v2/a/b/blobs/uploads/id"})
        with fake_registry(asking_for_basic(lambda _: elsewhere)) as server, client_of(server) as client:
            assert client.push_refusal("a/b") is None
    assert foreign.requests == []
    assert [request.method for request in server.requests] == ["POST", "POST"]


@pytest.mark.parametrize(("status", "allowed"), [(401, False), (403, False), (405, False), (202, True)])
def test_who_may_push(status: int, allowed: bool) -> None:
    respond = asking_for_basic(lambda _: Reply(status, headers={"Location": "/x"}))
    with fake_registry(respond) as server, client_of(server) as client:
        assert (client.push_refusal("a/b") is None) is allowed


@pytest.mark.parametrize(("status", "allowed"), [(401, False), (403, False), (404, True), (200, True)])
def test_who_may_pull(status: int, allowed: bool) -> None:
    with fake_registry(asking_for_basic(lambda _: Reply(status))) as server, client_of(server) as client:
        assert (client.pull_refusal("a/b") is None) is allowed


@pytest.mark.parametrize("probe", ["push_refusal", "pull_refusal"])
def test_a_failing_registry_is_not_a_refusal(probe: str) -> None:
    error = failing(Reply(500), lambda client: getattr(client, probe)("a/b"))
    assert error.error_class is ErrorClass.TRANSIENT


@pytest.mark.parametrize("path", ["", "A/b", "a/../b", "a/b?x", "a//b"])
def test_an_invalid_path_is_not_sent_to_the_registry(path: str) -> None:
    with fake_registry(Reply(200)) as server, client_of(server) as client:
        for ask in (client.push_refusal, client.pull_refusal, lambda name: client.manifest_digest(name, "1")):
            with pytest.raises(ValueError, match="path"):
                ask(path)
    assert server.requests == []


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_registry(Reply(502)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.url)
        with fake_registry(Reply(200, b"{}", VERSION)) as server, client_of(server) as client:
            client.ping()
    assert proxy.requests == []


def test_a_loopback_registry_without_a_scheme_may_use_plain_http_and_gets_no_password_before_that_is_known() -> None:
    with (
        fake_registry(asking_for_basic(lambda _: Reply(200, b"{}"))) as server,
        RegistryClient(RegistryAddress.parse(server.host), CREDENTIALS) as client,
    ):
        client.ping()
    assert [(request.method, bool(request.authorization)) for request in server.requests] == [
        ("HEAD", False),
        ("GET", False),
        ("GET", True),
    ]


def test_a_loopback_registry_with_https_in_its_url_is_not_contacted_over_plain_http() -> None:
    with fake_registry(Reply(200, b"{}", VERSION)) as server:
        address = RegistryAddress.parse(f"https://{server.host}")
        with (
            RegistryClient(address, CREDENTIALS) as client,
            pytest.raises(WorkError, match="does not use TLS") as failure,
        ):
            client.ping()
    assert failure.value.error_class is ErrorClass.INVALID
    assert server.requests == []


def test_an_invalid_certificate_authority_is_refused() -> None:
    with pytest.raises(WorkError, match="PEM") as failure:
        RegistryClient(RegistryAddress.parse("r.example"), ca_certificate="nonsense")
    assert failure.value.error_class is ErrorClass.INVALID


@contextmanager
def held_back() -> Iterator[FakeRegistry]:
    """Run a registry that does not reply until the block ends."""
    release = threading.Event()

    def respond(_request: Request) -> Reply:
        release.wait(30)
        return Reply(200, b"{}", VERSION)

    with fake_registry(respond) as server:
        try:
            yield server
        finally:
            release.set()


def test_a_cancellation_ends_a_read_that_waits() -> None:
    stop = CancelToken()
    with held_back() as server, client_of(server, cancel_token=stop) as client:

        def ask_once_it_waits() -> None:
            server.was_requested.wait(30)
            stop.cancel("superseded")

        thread = threading.Thread(target=ask_once_it_waits)
        thread.start()
        with pytest.raises(WorkCancelledError, match="superseded"):
            client.ping()
        thread.join()


def test_no_request_is_sent_after_a_cancellation() -> None:
    stop = CancelToken()
    stop.cancel("cancelled")
    with (
        fake_registry(Reply(200, b"{}")) as server,
        client_of(server, cancel_token=stop) as client,
        pytest.raises(WorkCancelledError),
    ):
        client.ping()
    assert server.requests == []


@pytest.mark.parametrize("timeouts", [Timeouts(read=0.05), Timeouts(total=0.05)])
def test_a_registry_that_does_not_answer_times_out(timeouts: Timeouts) -> None:
    with held_back() as server, client_of(server, timeouts=timeouts) as client, pytest.raises(WorkError) as failure:
        client.ping()
    assert failure.value.error_class is ErrorClass.TRANSIENT
    assert "in time" in failure.value.message


def test_every_request_fails_after_an_abort() -> None:
    with fake_registry(Reply(200, b"{}", VERSION)) as server, client_of(server) as client:
        client.abort()
        with pytest.raises(WorkError):
            client.ping()
    assert server.requests == []
