"""Settings are refused at start, each with a sentence that names the variable."""

from pathlib import Path

import pytest

from shared.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("REDIS_URL", "http://user:hidden@localhost", "must begin with redis://"),
        ("PUBLIC_URL", "longshore.example.com", "must begin with http:// or https://"),
        ("API_URL", "localhost:8081", "must begin with http:// or https://"),
        ("HEARTBEAT_SECONDS", "31", "at most half of LONGSHORE_LEASE_SECONDS"),
        ("LOG_LEVEL", "loud", "'debug'"),
        ("PYTHON_VERSIONS", "3.8,3", "'3' is not one"),
        ("PYTHON_VERSIONS", "3.7", "from 3.8 on"),
        ("PYTHON_IMAGE", "python:3.8", "must have {version} once"),
        ("ENVIRONMENTS", '{"python38": ""}', "must be a JSON object such as"),
        ("ENVIRONMENTS", '{"a name": "image"}', "must be a JSON object such as"),
        ("BUILD_INDEX_URL", "file:///etc/hidden", "must be the URL of a package index"),
        ("BUILD_INDEX_URL", "hidden@example.com/simple/", "must be the URL of a package index"),
        ("BUILD_CA_BUNDLE", "/nothing.pem", "names /nothing.pem, which is no file"),
        ("SOURCE_SSH_KEY", "/nothing", "names /nothing, which is no file"),
        ("HOME_REGISTRY_CA", "/nothing.pem", "names /nothing.pem, which is no file"),
    ],
)
def test_what_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str) -> None:
    monkeypatch.setenv(f"LONGSHORE_{variable}", value)
    with pytest.raises(SettingsError, match=said) as refused:
        load_settings()
    assert str(refused.value).startswith(f"LONGSHORE_{variable}: ")
    assert "hidden" not in str(refused.value)


def test_certificates_for_builds_with_a_private_key_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("-----BEGIN EC PRIVATE KEY-----\nhidden\n-----END EC PRIVATE KEY-----\n")
    monkeypatch.setenv("LONGSHORE_BUILD_CA_BUNDLE", str(bundle))
    with pytest.raises(SettingsError, match="private key") as refused:
        load_settings()
    assert "hidden" not in str(refused.value)


def test_a_lease_that_the_usual_heartbeat_cannot_keep_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_LEASE_SECONDS", "10")
    with pytest.raises(SettingsError, match=r"^LONGSHORE_HEARTBEAT_SECONDS: ") as refused:
        load_settings()
    assert "it is 15" in str(refused.value)
    monkeypatch.setenv("LONGSHORE_HEARTBEAT_SECONDS", "2.5")
    assert load_settings().lease_seconds == 10


@pytest.mark.parametrize("url", ["redis://h:1/0", "rediss://:p@h/1", "redis+socket:///run/redis.sock", ""])
def test_every_way_to_redis_is_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("LONGSHORE_REDIS_URL", url)
    assert load_settings().redis_url == url


def test_an_empty_optional_setting_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NODE_RESTART_URL", "REGISTRY_PROXY", "SERVING_DIR", "SOURCE_SSH_KEY"):
        monkeypatch.setenv(f"LONGSHORE_{name}", "")
    loaded = load_settings()
    assert (loaded.node_restart_url, loaded.registry_proxy) == (None, None)
    assert (loaded.serving_dir, loaded.source_ssh_key) == (None, None)
