"""Attacks of a build on the worker's package index: on its password, and for requests to other hosts."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.net.address_rules import AllowedNetworks
from tests.security.scripted_index import ScriptedResponse, ScriptedServer, page, scripted_server
from workers.builds.environment.package_index import PackageIndex

NOWHERE = AllowedNetworks.parse("LONGSHORE_BUILD_INDEX_NETWORKS", ("0.0.0.0/0", "::/0", "!127.0.0.0/8"))
LOOPBACK = AllowedNetworks.parse("LONGSHORE_BUILD_INDEX_NETWORKS", ("127.0.0.0/8",))


@contextmanager
def index_of(
    server: ScriptedServer, networks: AllowedNetworks = NOWHERE, max_bytes: int = 1000
) -> Iterator[PackageIndex]:
    index = PackageIndex(f"http://user:secret@{server.host}/t0ken/simple/", None, networks, max_bytes, CancelToken())
    try:
        yield index
    finally:
        index.close()


def fetched(index: PackageIndex, path: str) -> tuple[int, bytes]:
    with index.get(path) as response:
        return response.status, b"".join(response.pieces)


def links_of(index: PackageIndex, project: str = "small") -> list[str]:
    """Return the paths of the links on the page of a project."""
    _, body = fetched(index, f"simple/{project}/")
    return re.findall(r'href="\.\./\.\./([^"#]*)', body.decode())


FILE: ScriptedResponse = (200, {}, b"a wheel")


def test_a_file_that_a_page_links_to_is_fetched_with_the_password() -> None:
    answers = {"/t0ken/simple/small/": page("../../files/s-1.whl#sha256=ab"), "/t0ken/files/s-1.whl": FILE}
    answers["/t0ken/files/s-1.whl.metadata"] = (200, {}, b"Name: s")
    with scripted_server(answers) as server, index_of(server) as index:
        (link,) = links_of(index)
        assert link.endswith("/s-1.whl")
        assert fetched(index, link) == (200, b"a wheel")
        assert fetched(index, f"{link}.metadata") == (200, b"Name: s")
    assert {authorization for _, authorization in server.asked} == {"Basic dXNlcjpzZWNyZXQ="}


def test_no_page_tells_the_address_of_the_index_or_a_secret_in_its_path() -> None:
    with (
        scripted_server({"/t0ken/simple/small/": page("s-1.whl", "/t0ken/s-2.whl")}) as server,
        index_of(server) as index,
    ):
        status, body = fetched(index, "simple/small/")
        assert status == 200
        assert body.count(b"<a ") == 2
        for secret in ("t0ken", "secret", "user", server.host):
            assert secret.encode() not in body


@pytest.mark.parametrize(
    "path",
    [
        "", "simple/", "simple/small", "simple/../admin/", "simple/small/../../admin", "simple/%2e%2e/", "simple/./",
        "simple/a/b/", "simple/small/?q=1", "admin", "/simple/small/", "http://127.0.0.1:1/", "files/", "files/x/y",
        "files/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/s-1.whl", "simple/\u00e9/", "simple/small/\n", "files/=/s",
    ],
)  # fmt: skip
def test_nothing_but_pages_and_their_links_can_be_asked_for(path: str) -> None:
    with scripted_server({}) as server, index_of(server) as index:
        assert fetched(index, path) == (404, b"")
        assert server.asked == []


def test_a_link_serves_only_the_build_that_got_it_and_only_its_own_file() -> None:
    answers = {"/t0ken/simple/small/": page("/s-1.whl", "/s-2.whl"), "/s-1.whl": FILE, "/s-2.whl": FILE}
    with scripted_server(answers) as server, index_of(server) as index, index_of(server) as other:
        first, second = links_of(index)
        assert fetched(other, first) == (404, b"")
        assert fetched(index, first.replace("s-1", "s-2")) == (404, b"")
        assert fetched(index, second) == (200, b"a wheel")
        changed = first.replace(first[20], "A" if first[20] != "A" else "B")
        assert fetched(index, changed) == (404, b"")


@pytest.mark.parametrize("way", ["link", "redirect", "redirected page"])
def test_a_link_does_not_reach_what_only_the_worker_can_reach(way: str) -> None:
    with scripted_server({"/inside.whl": FILE}) as inside:
        target = f"http://{inside.host}/inside.whl"
        redirect: ScriptedResponse = (302, {"Location": target}, b"")
        answers = {"/t0ken/simple/small/": page(target if way == "link" else "/s-1.whl"), "/s-1.whl": redirect}
        if way == "redirected page":
            answers["/t0ken/simple/small/"] = redirect
        with (
            scripted_server(answers) as server,
            index_of(server) as index,
            pytest.raises(WorkError, match="LONGSHORE_BUILD_INDEX_NETWORKS"),
        ):
            fetched(index, links_of(index)[0])
        assert inside.asked == []


@pytest.mark.parametrize("way", ["link", "redirect"])
def test_no_other_host_gets_the_password(way: str) -> None:
    with scripted_server({"/s-1.whl": FILE}) as other:
        target = f"http://{other.host}/s-1.whl"
        answers = {
            "/t0ken/simple/small/": page(target if way == "link" else "/s-1.whl"),
            "/s-1.whl": (302, {"Location": target}, b""),
        }
        with scripted_server(answers) as server, index_of(server, LOOPBACK) as index:
            assert fetched(index, links_of(index)[0]) == (200, b"a wheel")
        assert other.asked == [("/s-1.whl", None)]


def test_endless_redirects_and_large_files_end() -> None:
    answers = {
        "/t0ken/simple/small/": page("/round.whl", "/large.whl"),
        "/round.whl": (302, {"Location": "/round.whl"}, b""),
        "/large.whl": (200, {}, bytes(2000)),
    }
    with scripted_server(answers) as server, index_of(server) as index:
        endless, large = links_of(index)
        with pytest.raises(WorkError, match="redirects without end"):
            fetched(index, endless)
        with pytest.raises(WorkError, match="more than 1000 bytes"):
            fetched(index, large)


@pytest.mark.parametrize(
    ("status", "error_class"),
    [(401, ErrorClass.AUTH), (429, ErrorClass.TRANSIENT), (500, ErrorClass.TRANSIENT), (503, ErrorClass.TRANSIENT)],
)
def test_an_index_that_fails_is_not_taken_for_one_without_the_package(status: int, error_class: ErrorClass) -> None:
    with (
        scripted_server({"/t0ken/simple/small/": (status, {}, b"")}) as server,
        index_of(server) as index,
        pytest.raises(WorkError, match="package index") as caught,
    ):
        fetched(index, "simple/small/")
    assert caught.value.error_class is error_class


def test_an_unreachable_index_is_named() -> None:
    with scripted_server({}) as server:
        pass
    with index_of(server) as index, pytest.raises(WorkError, match="package index could not be reached") as caught:
        fetched(index, "simple/small/")
    assert caught.value.error_class is ErrorClass.TRANSIENT


def test_an_index_that_has_no_html_is_named_in_the_error() -> None:
    """pip would say that there is no such package."""
    answer: ScriptedResponse = (200, {"Content-Type": "application/vnd.pypi.simple.v1+json"}, b'{"files": []}')
    with (
        scripted_server({"/t0ken/simple/small/": answer}) as server,
        index_of(server) as index,
        pytest.raises(WorkError, match="JSON only") as caught,
    ):
        fetched(index, "simple/small/")
    assert caught.value.error_class is ErrorClass.INVALID
