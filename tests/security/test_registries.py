"""Attacks by a registry with false responses: on secrets, memory, time, and stored images."""

import io
import itertools
import json
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

from api.invocation.runner_client import RunnerRequest, send
from shared.cancellation import CancelToken
from shared.db.models import Algorithm, Build
from shared.errors import ErrorClass, WorkError
from shared.net.address_rules import registry_networks
from shared.net.connections import tls_context
from shared.net.errors import MAX_RETRY_AFTER_SECONDS, retry_after
from shared.net.http import HttpTransport, Timeouts
from shared.net.responses import Response
from shared.numbers import MAX_NUMBER, whole_number
from shared.registry.address import RegistryAddress
from shared.registry.authentication import parse_challenges
from shared.registry.blobs import blob_size, stream_blob
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from shared.registry.upload import BlobOutcome, BlobUpload
from shared.registry.upload_session import Blob, min_chunk_bytes
from tests.environment import longshore_environment
from tests.git_service import make_algorithm
from tests.rows import build_commit, end_push, make_claim, make_registry, push
from tests.security.registry import (
    Image,
    Script,
    descriptor,
    digest_of,
    image_of,
    json_reply,
    raw_server,
    scripted_registry,
    serve_image,
    token_challenge,
)
from tests.unit.shared.registry.fake_registry import FakeRegistry, Reply, Request
from workers.images.layout import LayoutStore
from workers.pushes.locate import pull_from_registry
from workers.serving.health import read_health

CREDENTIALS = Credentials("pusher", "hunter2")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
NUMBERS = [
    "9" * 400,
    "9" * 5000,
    "²",
    "٣",
    "-1",
    "+1",
    "1_0",
    "1e999",
    "NaN",
    "0x10",
    "",
    " ",
    "1 2",
    "\uff11",
]


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path) -> Iterator[None]:
    with longshore_environment(tmp_path):
        yield


@pytest.fixture
def hostile() -> Iterator[tuple[FakeRegistry, Script]]:
    with scripted_registry() as started:
        yield started


def client_of(url: str, credentials: Credentials | None = CREDENTIALS, **options: Any) -> RegistryClient:
    return RegistryClient(RegistryAddress.parse(url), credentials, **options)


def paths(server: FakeRegistry) -> list[str]:
    return [request.path for request in server.requests]


def test_a_token_server_at_another_port_gets_no_password(hostile: tuple[FakeRegistry, Script]) -> None:
    server, script = hostile
    with scripted_registry() as (thief, _), client_of(server.url) as client:
        script.on("GET", "/v2/", token_challenge(f"{thief.url}/token"))
        with pytest.raises(WorkError, match="credentials are not sent"):
            client.ping()
        assert thief.requests == []
    assert [request.authorization for request in server.requests] == [None]


def test_an_identity_token_goes_to_no_other_port(hostile: tuple[FakeRegistry, Script]) -> None:
    server, script = hostile
    with scripted_registry() as (thief, _), client_of(server.url, Credentials("<token>", "refresh")) as client:
        script.on("GET", "/v2/", token_challenge(f"{thief.url}/token"))
        with pytest.raises(WorkError, match="credentials are not sent"):
            client.ping()
        assert thief.requests == []


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost.", "a.localhost.", "127.1", "2130706433", "0x7f.1", "017700000001", "0", "127.0.0.1."],
)
def test_a_registry_elsewhere_does_not_send_a_client_to_this_machine(host: str) -> None:
    with client_of("https://registry.test") as client, pytest.raises(WorkError, match="layers are not sent"):
        client.send_to("PUT", f"https://{host}/upload", scope="repository:a:push", body=b"secret layer")


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT"])
def test_an_upload_at_another_port_gets_no_layer(hostile: tuple[FakeRegistry, Script], method: str) -> None:
    server, _ = hostile
    with (
        scripted_registry() as (thief, _),
        client_of(server.url) as client,
        pytest.raises(WorkError, match="layers are not sent") as failure,
    ):
        client.send_to(method, f"{thief.url}/upload", scope="repository:a:push", body=b"secret layer")
    assert failure.value.error_class == ErrorClass.INVALID
    assert thief.requests == []


@pytest.mark.parametrize("expires_in", ["9" * 400, "-5", "0", "true", "null", '"²"', "1e999", "NaN", "[[]]", '"300"'])
def test_an_invalid_lifetime_does_not_break_a_push(hostile: tuple[FakeRegistry, Script], expires_in: str) -> None:
    server, script = hostile
    script.on("GET", "/token.*", Reply(200, f'{{"token": "t", "expires_in": {expires_in}}}'.encode()))
    script.on("GET", "/v2/", lambda request: _guarded(server, request))
    with client_of(server.url) as client:
        client.ping()
        client.ping()
    sent = [(request.path.partition("?")[0], request.authorization) for request in server.requests]
    assert sent == [("/v2/", None), ("/token", CREDENTIALS.basic), ("/v2/", "Bearer t"), ("/v2/", "Bearer t")]


def _guarded(server: FakeRegistry, request: Request) -> Reply:
    return json_reply(200, {}) if request.authorization == "Bearer t" else token_challenge(f"{server.url}/token")


@pytest.mark.parametrize(
    "body",
    [
        b'{"token": "t", "expires_in": ' + b"9" * 5000 + b"}",
        b'{"token": ' + b"[" * 100_000,
        b"[" * 200_000,
        b'{"token": "' + b"t" * 1_000_000 + b'"}',
        b'{"token": "t\\u0000"}',
        b'\xff\xfe{"token": "t"}',
        b'["token"]',
        b'{"token": {"token": "t"}}',
        b" " * 5_000_000 + b'{"token": "t"}',
    ],
)
def test_an_invalid_token_is_a_clear_error(hostile: tuple[FakeRegistry, Script], body: bytes) -> None:
    server, script = hostile
    script.on("GET", "/token.*", Reply(200, body))
    script.on("GET", "/v2/", token_challenge(f"{server.url}/token"))
    with client_of(server.url) as client, pytest.raises(WorkError, match="without a token") as failure:
        client.ping()
    assert failure.value.error_class == ErrorClass.INVALID


@pytest.mark.parametrize("number", NUMBERS)
def test_a_header_that_is_not_a_number_is_ignored(number: str) -> None:
    response = Response("POST", "http://r.example/", 202, {"OCI-Chunk-Min-Length": number}, b"")
    assert min_chunk_bytes(response) == 0
    assert whole_number(number) is None
    assert retry_after(number) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7),
        ("7", 7),
        (" 7\t", 7),
        (0, 0),
        (True, None),
        (7.0, None),
        (-1, None),
        (None, None),
        (MAX_NUMBER + 1, None),
    ],
)
def test_whole_numbers_are_read(value: object, expected: int | None) -> None:
    assert whole_number(value) == expected


@pytest.mark.parametrize(
    "date",
    [
        "Thu, 01 Jan 2026 00:00:00 +" + "9" * 14,
        "Thu, 01 Jan 2026 00:00:00 -" + "9" * 14,
        "Thu, 01 Jan " + "9" * 40 + " 00:00:00 GMT",
        "Thu, 32 Foo 0 99:99:99",
        "Thu, 01 Jan 2026 00:00:00 GMT" * 10_000,
        ",",
        "\x00",
    ],
)
def test_an_invalid_date_is_ignored(date: str) -> None:
    assert retry_after(date) in (None, 0.0, MAX_RETRY_AFTER_SECONDS)


@pytest.mark.parametrize("length", ["²", "9" * 5000, "-1"])
def test_an_invalid_size_of_a_blob_breaks_nothing(length: str) -> None:
    def reply() -> Iterable[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: " + length.encode("latin-1") + b"\r\n\r\n"

    with raw_server(reply) as server, client_of(server.url) as client:
        assert blob_size(client, "a/b", "sha256:" + "0" * 64, "") == 0


@pytest.mark.parametrize("size", [b"-1", b"-5", b"+9", b"0x5", b"1_0", b"f" * 5000, b""])
def test_a_negative_chunk_does_not_fill_the_memory(size: bytes) -> None:
    """`http.client` would read a chunk of -1 byte to the end of the connection, whatever the limit of the body is."""

    def reply() -> Iterable[bytes]:
        yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\n"
        yield from itertools.repeat(b"x" * 65536, 1000)

    with raw_server(reply) as server, client_of(server.url) as client:
        with pytest.raises(WorkError) as failure:
            client.manifest("a/b", "1")
        assert failure.value.error_class == ErrorClass.TRANSIENT
        assert server.sent_bytes < 32_000_000, "the rest was not read"


def test_a_runner_in_an_algorithms_hands_does_not_fill_the_memory(tmp_path: Path) -> None:
    """An algorithm can replace the HTTP server in its container."""

    def reply() -> Iterable[bytes]:
        yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n"
        yield from itertools.repeat(b"x" * 65536, 1000)

    with raw_server(reply) as server:
        response = send(
            server.url,
            RunnerRequest(b"{}", "application/json"),
            timeout=60,
            serving_dir=tmp_path,
            deadline=time.monotonic() + 60,
            max_bytes=1000,
        )
        assert b"container" in response.body
        assert read_health(server.url) is None
        assert server.sent_bytes < 64_000_000, "the rest was not read"


def test_an_answer_without_end_is_read_to_its_limit() -> None:
    def reply() -> Iterable[bytes]:
        yield HEAD + b"\r\n"
        yield from itertools.repeat(b"x" * 65536, 2000)

    with raw_server(reply) as server, client_of(server.url) as client:
        with pytest.raises(WorkError, match="more than 4 MiB") as failure:
            client.manifest("a/b", "1")
        assert failure.value.error_class == ErrorClass.INVALID
        assert server.sent_bytes < 64_000_000, "the rest was not read"


def test_a_compressed_answer_is_not_expanded() -> None:
    bomb = zlib.compress(b" " * 100_000_000, wbits=31)

    def reply() -> Iterable[bytes]:
        yield HEAD + f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb

    with raw_server(reply) as server, client_of(server.url) as client:
        assert client.manifest("a/b", "1") == bomb


@pytest.mark.parametrize(
    "head",
    [
        b"X-%d: y\r\n" * 5000,
        b"X: " + b"y" * 1_000_000 + b"\r\n",
        b"Location: /" + b"y" * 1_000_000 + b"\r\n",
        b"\xff\xfe\r\n" * 100_000,
    ],
)
def test_headers_without_end_are_not_read(head: bytes) -> None:
    def reply() -> Iterable[bytes]:
        yield b"HTTP/1.1 307 Moved\r\n" + head + b"Content-Length: 0\r\n\r\n"

    with raw_server(reply) as server, client_of(server.url) as client, pytest.raises(WorkError):
        client.manifest("a/b", "1")


def _slowly(first: bytes, drip: bytes) -> Iterable[bytes]:
    yield first
    for _ in range(1200):
        time.sleep(0.05)
        yield drip


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b"H"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y"),
        (HEAD + b"\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
    ],
)
def test_an_answer_a_byte_at_a_time_does_not_hold_a_worker(first: bytes, drip: bytes) -> None:
    """Each byte comes well within the read timeout, and there is no limit in total: layers may take hours."""
    timeouts = Timeouts(connect=5.0, read=1.0, total=None)
    with (
        raw_server(lambda: _slowly(first, drip)) as server,
        closing(HttpTransport(tls_context(), timeouts, networks=registry_networks())) as transport,
    ):
        with pytest.raises(WorkError, match="in time") as failure:
            transport.request("GET", f"{server.url}/", {})
        assert failure.value.error_class == ErrorClass.TRANSIENT
        with pytest.raises(WorkError, match="in time"):
            _read_all(transport, f"{server.url}/", timeouts)


def _read_all(transport: HttpTransport, url: str, timeouts: Timeouts) -> None:
    with transport.stream(url, {}, timeouts) as (_response, read):
        while read(1_000_000):
            pass


def test_a_redirect_in_a_circle_ends(hostile: tuple[FakeRegistry, Script]) -> None:
    server, script = hostile
    script.on("GET", "/.*", Reply(307, headers={"Location": "/v2/a/b/manifests/1"}))
    with client_of(server.url) as client:
        with pytest.raises(WorkError, match="too often"):
            client.manifest("a/b", "1")
        with (
            pytest.raises(WorkError, match="too often"),
            stream_blob(client, "a/b", "sha256:" + "0" * 64, "repository:a/b:pull"),
        ):
            pass
    assert len(server.requests) < 20


@pytest.mark.parametrize(
    "header",
    [
        "Basic, " * 100_000,
        'Bearer realm="' + "\\x" * 100_000,
        "a = b " * 100_000,
        " ,\t" * 100_000,
        "a" * 100_000,
        'Bearer realm="x",' + 'scope="y",' * 100_000,
    ],
)
def test_thousands_of_challenges_take_no_time(header: str) -> None:
    # Were it worse than quadratic in the 8 KiB that are read, this would take hours.
    assert len(parse_challenges(header)) <= 8192


def test_what_a_registry_says_is_plain_in_the_error(hostile: tuple[FakeRegistry, Script]) -> None:
    server, script = hostile
    errors = {"errors": [{"code": "DENIED\x1b[31m", "message": "\x1b]0;title\x07no\r\nX: y\u202e\u200b\x9b2J"}]}
    script.on("GET", "/v2/a/b/manifests/1", Reply(403, json.dumps(errors).encode()))
    with client_of(server.url) as client, pytest.raises(WorkError) as failure:
        client.manifest("a/b", "1")
    assert failure.value.message.isprintable()
    assert "DENIED, no X: y" in failure.value.message


@pytest.fixture
def pushed(hostile: tuple[FakeRegistry, Script]) -> tuple[Algorithm, Build, Image]:
    """An image that was pushed before the registry became hostile."""
    image = image_of(b"first layer", b"second layer")
    algorithm = make_algorithm("acme")
    build = build_commit(algorithm)
    end_push(make_claim(push(build, make_registry(hostile[0].url))), digest=image.digest)
    return algorithm, build, image


def pull(store: LayoutStore, pushed: tuple[Algorithm, Build, Image]) -> object:
    algorithm, build, image = pushed
    with store.use() as use:
        return pull_from_registry(use, algorithm, build, image.digest, lambda _message: None, CancelToken())


def stored(directory: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (directory / "blobs" / "sha256").iterdir() if path.name[0] != "."}


def test_an_image_that_matches_is_pulled(
    hostile: tuple[FakeRegistry, Script], pushed: tuple[Algorithm, Build, Image], tmp_path: Path
) -> None:
    store, image = LayoutStore(tmp_path / "images"), pushed[2]
    serve_image(hostile[1], "acme/hello", image)
    assert pull(store, pushed) is not None
    assert stored(tmp_path / "images") == {image.digest, *map(digest_of, (image.config, *image.layers))}


@pytest.mark.parametrize(
    "content",
    [
        image_of(b"another layer").manifest,
        image_of(*(b"%d" % number for number in range(1001))).manifest,
        image_of(b"x", changes={"layers": [descriptor("a/b", b"x", size=10**18)]}).manifest,
        b"[" * 100_000,
        b"",
    ],
)
def test_nothing_that_a_false_manifest_names_is_asked_for(
    hostile: tuple[FakeRegistry, Script],
    pushed: tuple[Algorithm, Build, Image],
    tmp_path: Path,
    content: bytes,
) -> None:
    server, script = hostile
    store, image = LayoutStore(tmp_path / "images"), pushed[2]
    serve_image(script, "acme/hello", image)
    false = Reply(200, content, {"Docker-Content-Digest": image.digest})
    script.on("GET", f"/v2/acme/hello/manifests/{image.digest}", false)
    assert pull(store, pushed) is None
    assert not [path for path in paths(server) if "/blobs/" in path]
    assert stored(tmp_path / "images") == set()


def test_a_blob_is_read_to_its_size_and_no_further(
    hostile: tuple[FakeRegistry, Script], pushed: tuple[Algorithm, Build, Image], tmp_path: Path
) -> None:
    script = hostile[1]
    store, image = LayoutStore(tmp_path / "images"), pushed[2]
    serve_image(script, "acme/hello", image)

    def endless() -> Iterable[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n" + image.layers[0]
        yield from itertools.repeat(b"x" * 65536, 2000)

    with raw_server(endless) as storage:
        moved = Reply(307, headers={"Location": f"{storage.url}/blob"})
        script.on("GET", f"/v2/acme/hello/blobs/{digest_of(image.layers[0])}", moved)
        with pytest.raises(WorkError, match="more than the 11 bytes") as failure:
            pull(store, pushed)
        assert failure.value.error_class == ErrorClass.TRANSIENT
        assert storage.sent_bytes < 64_000_000, "the rest was not read"
    assert stored(tmp_path / "images") == {digest_of(image.config)}


@pytest.mark.parametrize("content", [b"", b"first", b"FIRST layer", b"first layer "])
def test_a_blob_with_other_content_is_not_stored(
    hostile: tuple[FakeRegistry, Script], pushed: tuple[Algorithm, Build, Image], tmp_path: Path, content: bytes
) -> None:
    store, image = LayoutStore(tmp_path / "images"), pushed[2]
    serve_image(hostile[1], "acme/hello", image)
    hostile[1].on("GET", f"/v2/acme/hello/blobs/{digest_of(image.layers[0])}", Reply(200, content))
    with pytest.raises(WorkError):
        pull(store, pushed)
    assert stored(tmp_path / "images") == {digest_of(image.config)}


@pytest.mark.parametrize(
    "image",
    [
        image_of(b"x", changes={"layers": [descriptor("a/b", b"x", size=10**15)]}),
        image_of(b"x", changes={"layers": [descriptor("a/b", b"x", size=-1)]}),
        image_of(b"x", changes={"layers": [descriptor("a/b", b"x", size=10**400)]}),
        image_of(b"x", changes={"layers": [descriptor("a/b", b"x", size=True)]}),
        image_of(b"x", changes={"layers": [{"mediaType": "a/b", "digest": "sha256:../../../etc/passwd", "size": 1}]}),
        image_of(b"x", changes={"layers": [descriptor("a/b", b"x")] * 1001}),
        image_of(b"x", changes={"config": []}),
    ],
    ids=["too large", "negative", "400 digits", "true", "path", "too many", "list"],
)
def test_an_image_without_bounds_is_not_pulled(
    hostile: tuple[FakeRegistry, Script], tmp_path: Path, image: Image
) -> None:
    """Also when its digest is right, because an owner pushed it."""
    algorithm = make_algorithm("acme")
    build = build_commit(algorithm)
    end_push(make_claim(push(build, make_registry(hostile[0].url))), digest=image.digest)
    serve_image(hostile[1], "acme/hello", image)
    assert pull(LayoutStore(tmp_path / "images"), (algorithm, build, image)) is None
    assert not [path for path in paths(hostile[0]) if "/blobs/" in path]


@pytest.mark.parametrize("number", ["²", "9" * 5000, "-1", "1e9"])
def test_numbers_of_an_upload_do_not_break_a_push(hostile: tuple[FakeRegistry, Script], number: str) -> None:
    """Also when the upload is interrupted, and the registry returns such a number as its offset."""
    server, script = hostile
    content = b"a layer"
    statuses = iter([500, 202])
    header = {"OCI-Chunk-Min-Length": number, "Range": f"0-{number}", "Retry-After": number}
    script.on("POST", "/v2/a/b/blobs/uploads/", Reply(202, headers={"Location": "/upload", **header}))
    script.on("GET", "/upload", Reply(204, headers={"Location": "/upload", **header}))
    script.on("PATCH", "/upload", lambda _request: Reply(next(statuses), headers=header))
    script.on("PUT", "/upload.*", Reply(201))
    blob = Blob(
        digest_of(content), len(content), lambda offset: nullcontext(io.BytesIO(content[offset:]).read), lambda: None
    )
    with client_of(server.url) as client:
        outcome = BlobUpload(
            client,
            "a/b",
            blob,
            on_progress=lambda _sent: None,
            cancel_token=CancelToken(),
            abandoned=threading.Event(),
        ).run(check_exists=False)
    assert outcome == BlobOutcome.UPLOADED
    assert [request.body for request in server.requests if request.method == "PATCH"] == [content, content]
