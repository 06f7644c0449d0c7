import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.cancellation import CancelToken
from shared.errors import WorkCancelledError
from shared.git.command import clean_environment, run_git, running_git
from shared.subprocesses import SubprocessTimeoutError
from tests.processes import survivors_of_group


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "r.git"
    assert run_git(["init", "-q", "--bare", "--template=", "--", str(path)], timeout=30).ok
    return path


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/r"


def test_git_gets_nothing_of_the_operators_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "LONGSHORE_SECRET_KEYS",
        "GIT_DIR",
        "GIT_CONFIG_PARAMETERS",
        "GIT_SSH_COMMAND",
        "GIT_TRACE_CURL",
        "HOME",
    ):
        monkeypatch.setenv(name, "/leak")
    monkeypatch.delenv("GIT_SSL_CAINFO", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ca.pem")
    environment = clean_environment([("http.extraHeader", "A: b")], protocols=["https"])
    assert "/leak" not in environment.values()
    assert environment["GIT_SSL_CAINFO"] == "/etc/ca.pem"
    assert environment["GIT_ALLOW_PROTOCOL"] == "https"
    assert environment["GIT_TERMINAL_PROMPT"] == "0"


def test_the_configuration_is_ours_alone(repository: Path) -> None:
    listed = run_git(
        ["config", "--list", "--show-scope"], git_dir=repository, config=[("http.x.extraHeader", "A: b")], timeout=30
    )
    scopes = {line.partition("\t")[0] for line in listed.text.splitlines()}
    assert scopes == {"command", "local"}
    assert "http.x.extraheader=A: b" in listed.text


def test_without_a_repository_git_finds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    assert "not a git repository" in run_git(["rev-parse", "--git-dir"], timeout=30).errors


def test_without_a_repository_git_makes_no_directory_that_a_kill_would_leave(
    silent_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with running_git(["ls-remote", "--", silent_server], protocols=["http"], timeout=60):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///etc", "ext::sh -c true", "/etc", "http://127.0.0.1:1/r"])
def test_a_transport_that_was_not_named_is_not_used(url: str) -> None:
    answer = run_git(["ls-remote", "--", url], protocols=["https"], timeout=30)
    assert not answer.ok
    assert "not allowed" in answer.errors


def test_output_is_bounded(repository: Path) -> None:
    answer = run_git(["config", "--list"], git_dir=repository, timeout=30, max_output_bytes=10)
    assert answer.is_cut
    assert not answer.ok
    assert len(answer.output) == 10


def test_no_file_grows_beyond_the_limit(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(100_000))
    arguments = ["hash-object", "-w", "--no-filters", "--", str(tmp_path / "big")]
    refused = run_git(arguments, git_dir=repository, timeout=30, max_file_bytes=50_000)
    assert refused.status == -signal.SIGXFSZ
    assert run_git(arguments, git_dir=repository, timeout=30, max_file_bytes=200_000).ok


def test_git_is_killed_when_its_time_is_up_with_its_children(silent_server: str) -> None:
    with (
        pytest.raises(SubprocessTimeoutError),
        running_git(["ls-remote", "--", silent_server], protocols=["http"], timeout=0.5) as process,
    ):
        assert process.stdout.read() == b""
    assert survivors_of_group(process.pid) == []


def test_a_stop_ends_git(silent_server: str) -> None:
    stop = CancelToken()
    asker = threading.Timer(0.3, stop.cancel, ["cancelled"])
    asker.start()
    with pytest.raises(WorkCancelledError, match="cancelled"):
        run_git(["ls-remote", "--", silent_server], protocols=["http"], timeout=60, stop=stop)
    asker.join()


def test_a_secret_in_the_configuration_is_in_no_argument(silent_server: str) -> None:
    with running_git(
        ["ls-remote", "--", silent_server], protocols=["http"], config=[("http.extraHeader", "A: geheim")], timeout=60
    ) as process:
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert b"geheim" not in arguments
        process.kill()
