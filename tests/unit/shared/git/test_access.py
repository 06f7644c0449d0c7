"""How git is told where to go: to addresses that were checked, which it does not look up again."""

from pathlib import Path

import pytest

from shared.errors import ErrorClass, WorkError
from shared.git.access import make_access
from shared.git.repository_url import RepositoryUrl
from shared.net.address_rules import AllowedNetworks

EVERYTHING = AllowedNetworks.parse("LONGSHORE_SOURCE_NETWORKS", ("0.0.0.0/0", "::/0"))
NO_LOOPBACK = AllowedNetworks.parse("LONGSHORE_SOURCE_NETWORKS", ("0.0.0.0/0", "::/0", "!127.0.0.0/8", "!::1/128"))


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_git_gets_the_addresses_that_were_checked() -> None:
    access = make_access(RepositoryUrl.parse("https://localhost:8443/team/hello.git"), None, EVERYTHING)
    ((name, value),) = access.options["config"]
    assert name == "http.curloptResolve"
    assert value.startswith("localhost:8443:")
    assert "127.0.0.1" in value


def test_ssh_gets_the_address_and_keeps_the_names_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from shared.settings import settings

    (tmp_path / "known_hosts").touch()
    monkeypatch.setenv("LONGSHORE_SOURCE_SSH_KNOWN_HOSTS", str(tmp_path / "known_hosts"))
    settings.cache_clear()
    access = make_access(RepositoryUrl.parse("git@localhost:team/hello.git"), None, EVERYTHING)
    command = access.options["extra_environment"]["GIT_SSH_COMMAND"]
    assert "HostKeyAlias=localhost" in command
    assert "HostName=127.0.0.1" in command or "HostName=::1" in command
    settings.cache_clear()


@pytest.mark.parametrize("url", ["https://127.0.0.1/t/h.git", "https://localhost/t/h.git", "ssh://git@[::1]/t/h.git"])
def test_a_forbidden_address_is_refused(url: str) -> None:
    with pytest.raises(WorkError, match="LONGSHORE_SOURCE_NETWORKS") as caught:
        make_access(RepositoryUrl.parse(url), None, NO_LOOPBACK)
    assert caught.value.error_class is ErrorClass.INVALID


def test_a_name_that_cannot_be_resolved_is_not_left_to_git() -> None:
    with pytest.raises(WorkError, match="cannot be resolved") as caught:
        make_access(RepositoryUrl.parse("https://no-such-host.invalid/t/h.git"), None, EVERYTHING)
    assert caught.value.error_class is ErrorClass.TRANSIENT


def test_behind_a_proxy_the_proxy_resolves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example.com:3128")
    assert (
        make_access(RepositoryUrl.parse("https://no-such-host.invalid/t/h.git"), None, EVERYTHING).options["config"]
        == []
    )
    monkeypatch.setenv("no_proxy", "no-such-host.invalid")
    with pytest.raises(WorkError):
        make_access(RepositoryUrl.parse("https://no-such-host.invalid/t/h.git"), None, EVERYTHING)


def test_our_own_git_service_is_not_asked_about() -> None:
    assert (
        make_access(RepositoryUrl.parse("http://127.0.0.1:8082/git/o/n.git", allow_http=True), None).options["config"]
        == []
    )
