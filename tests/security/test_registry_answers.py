"""Every response of a registry leads to a result or a classified error."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.errors import ErrorClass, WorkError
from shared.net.http import Timeouts
from shared.net.responses import Response
from shared.registry.address import RegistryAddress
from shared.registry.blobs import blob_size, stream_blob
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from shared.registry.upload_session import Blob, UploadSession
from tests.environment import longshore_environment
from tests.security.registry import digest_of, image_of, scripted_registry
from tests.unit.shared.registry.fake_registry import FakeRegistry, Reply
from workers.images import oci

CONTENT = b"a layer"
DIGEST = digest_of(CONTENT)
SCOPE = "repository:a/b:pull,push"

URLS = [
    "", "/", "//", "///", "?", "#", "/v2/", "/upload", "upload?x#y", "/\x7f", "/ x", "\\\\evil", "/é", "/%00", "/%zz",
    "http://", "https://", "http:///", "http://[", "http://[::1", "http://[::1]:x/", "http://[v1.x]/", "http://]/",
    "https://a..b/", "https://.a/", f"https://{'a' * 70}.test/", f"https://{'a.' * 200}test/", "https://a_b:0/",
    "HTTP://SELF/upload", "http://SELF:99999/", "http://SELF:-1/", "http://SELF:²/", "http://SELF@SELF/",
    "http://a:b@SELF/", "https://SELF/", "http://SELF./", "http://127.0.0.1:1/", "http://[::ffff:127.0.0.1]:1/",
    "http://2130706433/", "http://0x7f.1/", "http://0/", "https://0/", "https://[::]/", "http://169.254.169.254/",
    "https://xn--a/", "https://xn--/", "https://\xad.test/", "https://℀.test/", "ftp://SELF/", "file:///etc/passwd",
    "javascript:x", "data:,x", "http:SELF/", "http:/SELF", "https://a%2eb/", "https://a%00b/", "https://*/", "https://-/",
]  # fmt: skip
OWN_URLS = {"", "/", "//", "///", "?", "#", "/v2/", "/upload", "upload?x#y", "/%00", "/%zz", "https://SELF/"}
"""Those that lead to the registry itself, where it is https and names itself by http."""
NUMBERS = ["0", "1", "7", "-1", "²", "9" * 400, "1e3", "0-6", "0-0", "0-99", "6-0", "bytes=0-6", ""]
DOCUMENTS: list[Any] = [
    None, True, 0, "x", [], {}, [[]], {"errors": None}, {"errors": {}}, {"errors": [None]}, {"errors": [[]]},
    {"errors": [{"code": [], "message": {}}]}, {"errors": [{"code": "DENIED", "message": "\ud800\x00\x1b[2J"}]},
    {"token": []}, {"token": "t"}, {"token": "t", "expires_in": 1e300}, {"access_token": 7}, {"token": "\ud800"},
    {"schemaVersion": 1}, {"schemaVersion": 2, "layers": [], "config": {}, "mediaType": ["x"]}, {"error": {"x": []}},
]  # fmt: skip

urls = st.sampled_from(URLS) | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=12)
challenges = st.builds(
    '{} realm="{}",service="{}",scope="{}"'.format, st.sampled_from(["Bearer", "basic", "x"]), urls, urls, urls
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "Location": urls,
        "WWW-Authenticate": challenges | urls,
        "Docker-Content-Digest": st.sampled_from([DIGEST, "sha256:x", "sha512:" + "0" * 128, "md5:" + "0" * 32, "²"]),
        "Content-Type": st.sampled_from(["text/html", "application/json; charset=no-such", "\xff", ""]),
        "Content-Encoding": st.sampled_from(["gzip", "br", "zstd", "no-such", "gzip, gzip"]),
        "Retry-After": st.sampled_from([*NUMBERS, "Thu, 01 Jan 2026 00:00:00 +99999999"]),
        "Range": st.sampled_from(NUMBERS),
        "OCI-Chunk-Min-Length": st.sampled_from(NUMBERS[:-1]),
        "Docker-Distribution-API-Version": st.sampled_from(["registry/2.0", "\xff"]),
        "Link": urls,
        "OCI-Subject": urls,
        "Transfer-Encoding": st.sampled_from(["identity", "gzip", "\xff"]),
    },
)
contents = (
    st.sampled_from([json.dumps(document).encode() for document in DOCUMENTS])
    | st.sampled_from([CONTENT, b"<html>", b"[" * 5000, b"{" * 5000, b"\xff\xfe", b'{"token": ' + b"9" * 5000 + b"}"])
    | st.binary(max_size=8)
)
statuses = st.sampled_from([200, 200, 201, 202, 202, 204, 206, 301, 304, 307, 308, 400, 401, 401, 403, 404, 405, 413,
                            416, 429, 500, 503, 599, 999])  # fmt: skip
replies = st.lists(st.tuples(statuses, headers, contents), min_size=1, max_size=4)


def _read_blob(client: RegistryClient) -> None:
    with stream_blob(client, "a/b", DIGEST, SCOPE, offset=2) as read:
        while read(100):
            pass


def _upload(client: RegistryClient) -> None:
    blob = Blob(DIGEST, len(CONTENT), lambda offset: nullcontext(io.BytesIO(CONTENT[offset:]).read), lambda: None)
    upload = UploadSession(client, "a/b", blob, SCOPE, lambda _sent: None)
    for _ in range(2):
        with suppress(WorkError):
            upload.run()
    upload.run()


CLASSES = {
    ErrorClass.AUTH, ErrorClass.NOT_FOUND, ErrorClass.INVALID, ErrorClass.THROTTLED, ErrorClass.TRANSIENT,
}  # fmt: skip
MAX_REQUESTS = 20
"""Redirects, tokens and the attempts of an upload included."""
CALLS: list[Callable[[RegistryClient], object]] = [
    lambda client: client.ping(),
    lambda client: client.manifest_digest("a/b", "1"),
    lambda client: client.manifest("a/b", DIGEST),
    lambda client: client.confirm("a/b", "1", DIGEST),
    lambda client: client.put_manifest("a/b", "1", CONTENT, "application/json"),
    lambda client: client.push_refusal("a/b"),
    lambda client: client.pull_refusal("a/b"),
    lambda client: blob_size(client, "a/b", DIGEST, SCOPE),
    _read_blob,
    _upload,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeRegistry]:
    with longshore_environment(Path(tmp_path_factory.mktemp("data"))), scripted_registry() as (started, _):
        yield started


def _replay(server: FakeRegistry, answers: list[tuple[int, dict[str, str], bytes]]) -> None:
    """Answer with these in turn, the last one again and again."""
    remaining = list(answers)
    server.requests.clear()

    def respond(_request: object) -> Reply:
        status, named, body = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return Reply(status, body, {name: value.replace("SELF", server.host) for name, value in named.items()})

    server.respond = respond


@settings(max_examples=400, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(call=st.sampled_from(CALLS), answers=replies)
@example(CALLS[1], [(307, {"Location": "https://a..b/"}, b"")])
def test_no_answer_of_a_registry_is_an_unexpected_error(
    server: FakeRegistry, call: Callable[[RegistryClient], object], answers: list[tuple[int, dict[str, str], bytes]]
) -> None:
    _replay(server, answers)
    address = RegistryAddress.parse(server.url)
    timeouts = Timeouts(connect=1.0, read=5.0, total=5.0)
    with RegistryClient(address, Credentials("u", "p"), timeouts=timeouts) as client:
        error = _error_of(call, client)
    assert error is None or (error.error_class in CLASSES and error.message.isprintable())
    assert 0 < len(server.requests) <= MAX_REQUESTS


def _error_of(call: Callable[[RegistryClient], object], client: RegistryClient) -> WorkError | None:
    try:
        call(client)
    except WorkError as error:
        return error
    return None


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("url", [*URLS, "http://SELF:\uff11/"])
def test_no_location_of_an_upload_breaks_a_push_to_a_registry_behind_tls(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that does not know of the TLS before it names itself by http; what names nothing is refused."""
    monkeypatch.setenv("NO_PROXY", "*")  # the registry's name is looked up here, and there is none
    named = "http" + url.removeprefix("https").removeprefix("http").replace("SELF", "r.test")
    opened = Response("POST", "https://r.test/v2/a/b/blobs/uploads/", 202, {"Location": named}, b"")
    with RegistryClient(RegistryAddress.parse("https://r.test")) as client, pytest.raises(WorkError) as failure:
        client.send_to("PUT", opened.location, scope=SCOPE, body=b"")
    if url in OWN_URLS:
        assert failure.value.error_class == ErrorClass.TRANSIENT, "the registry is looked for"
    else:
        assert failure.value.error_class == ErrorClass.INVALID
        assert "layers are not sent" in failure.value.message


TEXTS = st.sampled_from([DIGEST, oci.OCI_MANIFEST, oci.OCI_LAYER, "\ud800"])
KEYS = st.sampled_from(["mediaType", "digest", "size", "annotations", "x"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(["mediaType", "config", "layers", "annotations", "manifests"], json_values)
    )
)
@example({"mediaType": ["a list is not hashable"]})
@example({"mediaType": {"nor": "is a dictionary"}})
def test_no_manifest_is_an_unexpected_error(changes: dict[str, Any]) -> None:
    manifest = json.loads(image_of(CONTENT).manifest) | changes
    with suppress(oci.InvalidManifestError):
        read = oci.Manifest.parse(json.dumps(manifest).encode())
        assert read.blobs
        assert read.content
        with suppress(oci.InvalidManifestError):
            assert read.to_docker_schema2().content
