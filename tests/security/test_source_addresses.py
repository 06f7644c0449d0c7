"""Attacks with source URLs: on the private network, and on repositories of other owners."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from api.owner_slots import remote_slots
from dev.services.server_thread import serve_in_thread
from shared.cancellation import CancelToken
from shared.db.models import Algorithm
from shared.errors import ErrorClass, WorkError
from shared.git import sources
from shared.git.access import make_access
from shared.git.repository_url import RepositoryUrl
from shared.git.sources import list_repository, newest_commit, reach_repository
from shared.net.address_rules import is_public_address, source_networks, source_trusted_networks
from shared.settings import SettingsError, load_settings, settings
from tests.environment import longshore_environment
from tests.git_service import WorkTree
from tests.plain_git_server import plain_git_server
from tests.service.api.invocation import Api
from tests.silent_server import silent_server
from workers.builds.source import fetch_source

PAUSE_SECONDS = 0.3


def _forget_settings() -> None:
    for cached in (settings, source_networks, source_trusted_networks):
        cached.cache_clear()


@pytest.fixture
def default_networks(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - it must run first
    """The settings of an installation whose operator set none about networks."""
    monkeypatch.delenv("LONGSHORE_SOURCE_NETWORKS")
    monkeypatch.delenv("LONGSHORE_SOURCE_TRUSTED_NETWORKS")
    _forget_settings()


@pytest.fixture
def hidden_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Settings that allow sources on this machine, and hide their errors."""
    monkeypatch.setattr(sources, "HIDDEN_ERROR_SECONDS", PAUSE_SECONDS)
    with longshore_environment(tmp_path / "data", tables=False, source_trusted_networks="", source_allow_http="true"):
        yield


@pytest.mark.usefixtures("default_networks")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
def test_a_source_url_reaches_no_port_of_the_machine_by_default(acme: Api, host: str) -> None:
    source = {"repository_https_url": f"https://{host}:5432/a/b.git"}
    body = {"name": "Probe", "details": {"label": "P"}, "settings": {}, "source": source}
    message = acme.expect_refusal(400, 2015, "POST", "/v1/algorithms/acme", body)
    assert "LONGSHORE_SOURCE_NETWORKS" in message
    assert host.strip("[]") in message
    if "localhost" in host:
        assert "127.0.0.1" not in message, "it tells to which address a name resolves"


@pytest.mark.usefixtures("default_networks")
def test_a_url_that_was_recorded_by_an_older_version_is_not_used(acme: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_SOURCE_NETWORKS", "0.0.0.0/0,::/0")
    _forget_settings()
    path = acme.make_algorithm("acme")
    monkeypatch.delenv("LONGSHORE_SOURCE_NETWORKS")
    _forget_settings()
    assert "LONGSHORE_SOURCE_NETWORKS" in acme.expect_refusal(400, 2015, "POST", f"{path}/compile")


@contextmanager
def _port_that_refuses() -> Iterator[str]:
    with socket.socket() as bound:  # bound and not listening: nobody else gets the port
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def _server_that_says(text: bytes) -> Iterator[str]:
    """A server of another protocol, which greets and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(text)

        greeter = threading.Thread(target=greet, daemon=True)
        greeter.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        greeter.join()


@contextmanager
def _all_that_can_be_at_an_address(directory: Path) -> Iterator[list[str]]:
    with ExitStack() as stack:
        refusing = stack.enter_context(_port_that_refuses())
        silent, _ = stack.enter_context(silent_server())
        other = stack.enter_context(_server_that_says(b"-ERR unknown command 'GET'\r\n"))
        web = [stack.enter_context(plain_git_server(directory, status=each)) for each in (200, 302, 401, 403, 404, 500)]
        tls = stack.enter_context(plain_git_server(directory, tls=True))
        yield [
            f"http://{refusing}/r",
            f"https://{refusing}/r",
            f"http://{silent}/r",
            f"http://{other}/r",
            f"https://{other}/r",
            *(f"{url}/r" for url in web),
            f"{tls}/r",
            "https://no-such-host.invalid/r",
        ]


@pytest.mark.usefixtures("hidden_errors")
def test_a_caller_does_not_learn_what_answers_at_a_private_address_or_that_nothing_does(tmp_path: Path) -> None:
    seen = set()
    with _all_that_can_be_at_an_address(tmp_path) as urls:
        for text in urls:
            url, began = RepositoryUrl.parse(text, allow_http=True), time.monotonic()
            with pytest.raises(WorkError) as failed:
                newest_commit(url, owner="acme", timeout=60)
            assert time.monotonic() - began >= PAUSE_SECONDS, f"{text} was told at once"
            seen.add((failed.value.error_class, failed.value.message.replace(str(url), "URL")))
    assert len(seen) == 1, seen


@pytest.mark.usefixtures("hidden_errors")
def test_the_status_of_a_connection_does_not_tell_what_answers_at_a_private_address(tmp_path: Path) -> None:
    seen = set()
    with (
        _port_that_refuses() as refusing,
        plain_git_server(tmp_path, status=401) as forbidden,
        plain_git_server(tmp_path, status=404) as absent,
    ):
        for text in (f"http://{refusing}/r", f"{forbidden}/r", f"{absent}/r", "https://no-such-host.invalid/r"):
            began = time.monotonic()
            with pytest.raises(WorkError) as failed:
                list_repository(Algorithm(id="8f6f3a54", owner="acme", name="n", repository_url=text), timeout=60)
            assert time.monotonic() - began >= PAUSE_SECONDS
            seen.add((failed.value.error_class, failed.value.message.replace(text, "URL")))
    assert len(seen) == 1, seen


@pytest.mark.usefixtures("hidden_errors")
def test_a_build_does_not_tell_what_answers_at_a_private_address(tmp_path: Path) -> None:
    seen = set()
    with _all_that_can_be_at_an_address(tmp_path) as urls:
        for text in urls:
            source = Algorithm(id="8f6f3a54-6d0c-4a58-bb0f-1c2cb1a4f001", owner="o", name="n", repository_url=text)
            lines: list[str] = []
            with (
                pytest.raises(WorkError) as failed,
                fetch_source(source, "0" * 40, log=lines.append, stop=CancelToken()),
            ):
                pytest.fail("there is no repository")
            seen.add((failed.value.error_class, failed.value.message.replace(text, "URL"), tuple(lines)))
    assert len(seen) == 1, seen


@pytest.mark.usefixtures("hidden_errors")
@pytest.mark.parametrize(
    ("networks", "reached"),
    [
        ("0.0.0.0/0,::/0,!127.0.0.1/32,!::1/128", False),
        ("0.0.0.0/0,::/0,!127.0.0.1/32,127.8.0.0/16", True),
        ("0.0.0.0/0,::/0", True),
    ],
)
def test_the_machine_is_not_reached_by_another_address_of_it(
    monkeypatch: pytest.MonkeyPatch, networks: str, reached: bool
) -> None:
    """Like the address of its network card: here 127.8.9.1 stands for one that is not loopback."""
    monkeypatch.setenv("LONGSHORE_SOURCE_NETWORKS", networks)
    _forget_settings()
    with socket.create_server(("127.8.9.1", 0)) as server:
        url = RepositoryUrl.parse(f"http://127.8.9.1:{server.getsockname()[1]}/r", allow_http=True)
        with pytest.raises(WorkError, match="cannot be read at the moment") as failed:
            newest_commit(url, owner="acme", timeout=60)
        assert failed.value.error_class is ErrorClass.TRANSIENT
        server.setblocking(False)
        assert _was_connected(server) == reached


def _was_connected(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.mark.usefixtures("hidden_errors")
def test_a_private_repository_that_answers_is_read_all_the_same(tmp_path: Path) -> None:
    tree = WorkTree(tmp_path / "tree")
    tree.commit()
    tree.git("clone", "--quiet", "--bare", ".", str(tmp_path / "root" / "r.git"))
    with plain_git_server(tmp_path / "root") as address:
        url = RepositoryUrl.parse(f"{address}/r.git", allow_http=True)
        assert newest_commit(url, owner="acme") == tree.head
        assert not reach_repository(url, None, owner="acme", timeout=60, stop=CancelToken()).errors_are_visible


def test_errors_of_the_operators_own_git_servers_are_visible(tmp_path: Path) -> None:
    with (
        longshore_environment(tmp_path / "data", tables=False, source_allow_http="true"),
        plain_git_server(tmp_path, status=401) as url,
        pytest.raises(WorkError) as failed,
    ):
        newest_commit(RepositoryUrl.parse(f"{url}/r", allow_http=True), owner="acme")
    assert failed.value.error_class is ErrorClass.AUTH


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1", "fd00::1", "::ffff:10.0.0.1", "192.0.2.1"]
)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public_address(address)


def test_public_addresses_are_public() -> None:
    assert is_public_address("140.82.112.3")
    assert is_public_address("2606:4700::1111")


@pytest.mark.usefixtures("hidden_errors")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "10.1.2.3", "169.254.169.254"])
def test_a_proxy_is_not_sent_to_an_address_that_is_not_allowed(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_SOURCE_NETWORKS", "0.0.0.0/0,::/0,!127.0.0.0/8,!::1/128,!10.0.0.0/8")
    _forget_settings()
    monkeypatch.setenv("https_proxy", "http://proxy.example.com:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(WorkError) as failed:
        make_access(RepositoryUrl.parse(f"https://{host}/a/b"), None, source_networks())
    assert failed.value.error_class is ErrorClass.INVALID


@pytest.mark.usefixtures("hidden_errors")
def test_alternates_of_a_repository_lead_git_to_no_other_server() -> None:
    """The old protocol over HTTP lets a server name others that have the objects."""
    commit, requested = "a" * 40, list[str]()
    with silent_server() as (elsewhere, connected):

        @Request.application
        def serve(request: Request) -> Response:
            requested.append(request.path)
            if request.path.endswith("/info/refs"):
                return Response(f"{commit}\trefs/heads/main\n", mimetype="text/plain")
            if request.path.endswith("/HEAD"):
                return Response("ref: refs/heads/main\n")
            if "alternates" in request.path:
                return Response(f"http://{elsewhere}/r/objects\n")
            return Response("", 404)

        server = make_server("127.0.0.1", 0, serve, threaded=True)
        with serve_in_thread(server):
            url = f"http://127.0.0.1:{server.server_port}/r"
            source = Algorithm(id="8f6f3a54-6d0c-4a58-bb0f-1c2cb1a4f001", owner="o", name="n", repository_url=url)
            with (
                pytest.raises(WorkError),
                fetch_source(source, commit, log=lambda _: None, stop=CancelToken()),
            ):
                pytest.fail("there is no such commit")
    assert any(path.endswith("/info/refs") for path in requested)
    assert not connected.is_set()


@pytest.fixture
def ssh_key(app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: ARG001 - it must run first
    """A key for ssh:// repositories, which is for one team of `acme` alone."""
    for name in ("known_hosts", "key"):
        (tmp_path / name).touch()
    monkeypatch.setenv("LONGSHORE_SOURCE_SSH_KNOWN_HOSTS", str(tmp_path / "known_hosts"))
    monkeypatch.setenv("LONGSHORE_SOURCE_SSH_KEY", str(tmp_path / "key"))
    monkeypatch.setenv("LONGSHORE_SOURCE_SSH_KEY_SCOPES", "acme=ssh://git@192.0.2.1/team/")
    _forget_settings()
    return tmp_path / "key"


@pytest.mark.usefixtures("ssh_key")
@pytest.mark.parametrize(
    ("owner", "url", "allowed"),
    [
        ("acme", "ssh://git@192.0.2.1/team/hello.git", True),
        ("acme", "git@192.0.2.1:team/hello.git", True),
        ("rival", "ssh://git@192.0.2.1/team/hello.git", False),
        ("acme", "ssh://git@192.0.2.1/team-of-others/hello.git", False),
        ("acme", "ssh://git@192.0.2.1/others/hello.git", False),
        ("acme", "ssh://root@192.0.2.1/team/hello.git", False),
        ("acme", "ssh://git@192.0.2.2/team/hello.git", False),
        ("acme", "ssh://git@192.0.2.1:2222/team/hello.git", False),
    ],
)
def test_an_owner_does_not_read_everything_that_the_shared_key_reads(
    admin: Api, owner: str, url: str, allowed: bool
) -> None:
    admin.post(f"/v1/users/{owner}/keys", {"key_type": "AlgorithmKey"})
    body = {"name": "Hello", "details": {"label": "H"}, "settings": {}, "source": {"repository_https_url": url}}
    answer = admin.call("POST", f"/v1/algorithms/{owner}", body)
    assert answer.status_code == (201 if allowed else 400), answer.get_data(as_text=True)
    parsed = RepositoryUrl.parse(url, allow_ssh=True)
    if allowed:
        command = make_access(parsed, None, owner=owner).options["extra_environment"]["GIT_SSH_COMMAND"]
        assert "/key" in command
        return
    assert "LONGSHORE_SOURCE_SSH_KEY_SCOPES" in answer.get_json()["error"]["message"]
    with pytest.raises(WorkError, match="SSH_KEY_SCOPES"):  # recorded before the operator narrowed the key
        make_access(parsed, None, owner=owner)


def test_without_a_scope_the_shared_key_is_for_nobody(ssh_key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ssh_key.exists()
    monkeypatch.delenv("LONGSHORE_SOURCE_SSH_KEY_SCOPES")
    _forget_settings()
    with pytest.raises(WorkError, match="SSH_KEY_SCOPES"):
        make_access(RepositoryUrl.parse("ssh://git@192.0.2.1/team/hello.git"), None, owner="acme")


def test_ssh_uses_no_key_of_the_account_that_longshore_runs_under(
    ssh_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ssh_key.exists()
    monkeypatch.delenv("LONGSHORE_SOURCE_SSH_KEY")
    _forget_settings()
    access = make_access(RepositoryUrl.parse("ssh://git@192.0.2.1/team/hello.git"), None, owner="acme")
    assert "IdentityFile=none" in access.options["extra_environment"]["GIT_SSH_COMMAND"]


@pytest.mark.parametrize(
    "scope", ["acme", "acme=https://git.example.com/a", "acme=", "a b=ssh://git@h/x", "=ssh://h/x"]
)
def test_an_invalid_scope_stops_the_start(monkeypatch: pytest.MonkeyPatch, scope: str) -> None:
    monkeypatch.setenv("LONGSHORE_SOURCE_SSH_KEY_SCOPES", scope)
    with pytest.raises(SettingsError, match="LONGSHORE_SOURCE_SSH_KEY_SCOPES: must be such as"):
        load_settings()


def test_compiles_from_repositories_that_never_answer_are_refused_beyond_a_few(acme: Api, rival: Api) -> None:
    remote_slots.cache_clear()
    slots, taken = remote_slots(), 0
    while slots.acquire("rival"):
        taken += 1
    try:
        assert taken == 2  # of sixteen threads
        path = rival.make_algorithm("rival")
        refused = rival.call("POST", f"{path}/compile")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
        rival.post(f"{path}/compile", {"commitSha": "a" * 40})
        other = acme.make_algorithm("acme")
        acme.expect_refusal(409, 2015, "POST", f"{other}/compile")  # it was asked, and nobody answered
    finally:
        remote_slots.cache_clear()
