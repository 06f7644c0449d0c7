import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from shared.errors import ErrorClass, WorkError
from shared.registry.address import RegistryAddress
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from tests.unit.shared.registry.fake_registry import VERSION, FakeRegistry, Reply, Request, Respond, fake_registry

CREDENTIALS = Credentials("pusher", "hunter2")


def token_reply(token: str = "issued", **fields: int) -> Reply:  # noqa: S107
    return Reply(200, json.dumps({"token": token, **fields}).encode())


def guarded(
    realm: str, *, accepts: Sequence[str] = ("Bearer issued",), scope: str | None = None
) -> Callable[[Request], Reply]:
    """Return a registry that replies 401 with a bearer challenge until it gets one of the headers."""
    parameters = f'realm="{realm}",service="the registry"' + (f',scope="{scope}"' if scope else "")

    def respond(request: Request) -> Reply:
        if request.authorization in accepts:
            return Reply(200, b"{}", VERSION)
        return Reply(401, b"", {"WWW-Authenticate": f"Bearer {parameters}", **VERSION})

    return respond


@contextmanager
def token_registry(
    tokens: Respond, *, query: str = "", accepts: Sequence[str] = ("Bearer issued",), scope: str | None = None
) -> Iterator[FakeRegistry]:
    """Run a guarded registry with a token server at its own origin, as `tokens` responds."""

    def respond(request: Request) -> Reply:
        if request.path.startswith("/token"):
            return tokens(request) if callable(tokens) else tokens
        realm = f"http://{request.headers['host']}/token{query}"
        return guarded(realm, accepts=accepts, scope=scope)(request)

    with fake_registry(respond) as server:
        yield server


def token_requests(server: FakeRegistry) -> list[Request]:
    return [request for request in server.requests if request.path.startswith("/token")]


def own_requests(server: FakeRegistry) -> list[Request]:
    return [request for request in server.requests if not request.path.startswith("/token")]


def client_of(server: Any, credentials: Credentials | None = CREDENTIALS) -> RegistryClient:
    return RegistryClient(RegistryAddress.parse(server.url), credentials)


def test_a_token_is_requested_with_the_password_and_sent_to_the_registry() -> None:
    with (
        token_registry(token_reply(), query="?kept=1", scope="repository:a/b:pull extra:x:y") as server,
        client_of(server) as client,
    ):
        assert client.pull_refusal("a/b") is None
    (request,) = token_requests(server)
    assert request.authorization == CREDENTIALS.basic
    assert parse_qs(urlsplit(request.path).query) == {
        "kept": ["1"],
        "client_id": ["longshore"],
        "service": ["the registry"],
        "scope": ["repository:a/b:pull", "extra:x:y"],
    }
    assert [request.authorization for request in own_requests(server)] == [None, "Bearer issued"]


def test_there_is_one_token_per_scope() -> None:
    with (
        token_registry(token_reply(expires_in=300)) as server,
        client_of(server) as client,
    ):
        assert client.pull_refusal("a/b") is None
        assert client.pull_refusal("a/b") is None
        assert client.pull_refusal("a/c") is None
    assert [parse_qs(urlsplit(each.path).query)["scope"] for each in token_requests(server)] == [
        ["repository:a/b:pull"],
        ["repository:a/c:pull"],
    ]
    assert [bool(request.authorization) for request in own_requests(server)] == [False, True, True, True]


def test_a_token_is_renewed_before_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with (
        token_registry(token_reply(expires_in=100)) as server,
        client_of(server) as client,
    ):
        client.ping()
        now = 1089.0
        client.ping()
        assert len(token_requests(server)) == 1
        now = 1091.0
        client.ping()
    assert len(token_requests(server)) == 2
    assert [bool(request.authorization) for request in own_requests(server)] == [False, True, True, True]


def test_a_refused_token_is_replaced_once() -> None:
    issued = iter(["first", "second", "third"])
    accepted = ["Bearer first"]
    with (
        token_registry(lambda _: token_reply(next(issued)), accepts=accepted) as server,
        client_of(server) as client,
    ):
        client.ping()
        accepted[:] = ["Bearer second"]
        client.ping()
        accepted.clear()
        with pytest.raises(WorkError) as failure:
            client.ping()
    assert failure.value.error_class is ErrorClass.AUTH
    assert len(token_requests(server)) == 3
    assert not any(token in failure.value.message for token in ("first", "second", "third"))


def test_an_identity_token_is_exchanged_for_an_access_token() -> None:
    with (
        token_registry(Reply(200, b'{"access_token": "issued", "expires_in": 60}')) as server,
        client_of(server, Credentials("<token>", "refresh+me")) as client,
    ):
        assert client.pull_refusal("a/b") is None
    (request,) = token_requests(server)
    assert (request.method, request.path, request.authorization) == ("POST", "/token", None)
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["refresh+me"],
        "client_id": ["longshore"],
        "service": ["the registry"],
        "scope": ["repository:a/b:pull"],
    }


def test_an_identity_token_requests_several_scopes_in_one_parameter() -> None:
    """OAuth2 has one `scope` (RFC 6749 section 3.3): some servers read only the first of several."""
    with (
        token_registry(Reply(200, b'{"access_token": "issued", "expires_in": 60}')) as server,
        client_of(server, Credentials("<token>", "refresh+me")) as client,
    ):
        client.send("POST", "/v2/a/blobs/uploads/", scope="repository:a:pull,push repository:b:pull", body=b"")
    assert parse_qs(token_requests(server)[0].body.decode())["scope"][0].startswith(
        "repository:a:pull,push repository:b:pull"
    )


def test_an_identity_token_is_not_sent_as_a_password() -> None:
    challenge = Reply(401, b"", {"WWW-Authenticate": 'Basic realm="x"', **VERSION})
    with (
        fake_registry(challenge) as server,
        client_of(server, Credentials("<token>", "refresh")) as client,
        pytest.raises(WorkError, match="identity token") as failure,
    ):
        client.ping()
    assert failure.value.error_class is ErrorClass.AUTH
    assert [request.authorization for request in server.requests] == [None]


def test_without_credentials_an_anonymous_token_is_requested() -> None:
    with (
        token_registry(token_reply()) as server,
        client_of(server, None) as client,
    ):
        assert client.pull_refusal("a/b") is None
    assert [request.authorization for request in token_requests(server)] == [None]


@pytest.mark.parametrize(
    "realm",
    [
        "http://127.0.0.1:1/token",
        "http://localhost/token",
        "http://auth.example/token",
        "https://169.254.0.1/token",
        "https://user@auth.example/token",
        "file:///etc/passwd",
        "",
    ],
)
def test_no_credentials_are_sent_to_a_forbidden_token_server(realm: str) -> None:
    with (
        fake_registry(guarded(realm)) as server,
        client_of(server) as client,
        pytest.raises(WorkError, match="credentials are not sent") as failure,
    ):
        client.ping()
    assert failure.value.error_class is ErrorClass.INVALID
    assert [request.authorization for request in server.requests] == [None]


def test_the_challenge_of_another_host_is_ignored() -> None:
    """A storage to which the registry redirects sends a challenge: its realm gets no request."""
    with token_registry(token_reply()) as store:
        moved = Reply(307, headers={"Location": f"{store.url}/x"})
        with fake_registry(moved) as server, client_of(server) as client, pytest.raises(WorkError) as failure:
            client.manifest_digest("a/b", "1")
    assert failure.value.error_class is ErrorClass.AUTH
    assert len(own_requests(store)) == 1
    assert token_requests(store) == []


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(401, b'{"details": "incorrect username or password"}'), ErrorClass.AUTH),
        (Reply(403), ErrorClass.AUTH),
        (Reply(404), ErrorClass.NOT_FOUND),
        (Reply(429, b"", {"Retry-After": "9"}), ErrorClass.THROTTLED),
        (Reply(503), ErrorClass.TRANSIENT),
        (Reply(307, headers={"Location": "https://evil.example/"}), ErrorClass.INVALID),
        (Reply(200, b"{}"), ErrorClass.INVALID),
        (Reply(200, b"<html>"), ErrorClass.INVALID),
        (Reply(200, b'{"token": "a\\r\\nX-Injected: 1"}'), ErrorClass.INVALID),
        (Reply(200, b'{"token": 5}'), ErrorClass.INVALID),
    ],
)
def test_the_class_of_a_token_servers_response(reply: Reply, expected: ErrorClass) -> None:
    with (
        token_registry(reply) as server,
        client_of(server) as client,
        pytest.raises(WorkError) as failure,
    ):
        client.ping()
    assert failure.value.error_class is expected
    assert "hunter2" not in failure.value.message


def test_an_expired_identity_token_is_an_auth_error() -> None:
    with (
        token_registry(Reply(400, b'{"error": "invalid_grant"}')) as server,
        client_of(server, Credentials("<token>", "refresh")) as client,
        pytest.raises(WorkError, match="invalid_grant") as failure,
    ):
        client.ping()
    assert failure.value.error_class is ErrorClass.AUTH
