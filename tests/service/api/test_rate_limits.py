"""Rate limits per key, counted in Redis, and the response above a limit."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from flask import Flask
from werkzeug.test import TestResponse

from api.rate_limits import _rate_limits_of, to_redis_py_url
from dev.services.redis import private_redis
from shared.settings import settings
from tests.service.api.invocation import Api


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[Callable[..., None]]:
    """A function that sets limits and clears the counters."""

    def set_limits(url: str = redis_url, **limits: int) -> None:
        monkeypatch.setenv("LONGSHORE_REDIS_URL", url)
        for name, most in limits.items():
            monkeypatch.setenv(f"LONGSHORE_RATE_LIMIT_{name.upper()}", str(most))
        settings.cache_clear()
        _rate_limits_of.cache_clear()
        with redis.Redis.from_url(redis_url) as client:
            client.flushdb()

    yield set_limits
    _rate_limits_of.cache_clear()


def make(api: Api, name: str) -> TestResponse:
    return api.call("POST", "/v1/registries", {"registry_url": f"{name}.example.com"})


def test_too_many_changes_by_one_key_are_refused_for_a_while(admin: Api, acme: Api, limit: Callable[..., None]) -> None:
    limit(changes=3)
    assert [make(admin, "r").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    refused = make(admin, "r")
    assert 1 <= int(refused.headers["Retry-After"]) <= 61
    assert refused.get_json()["error"]["code"] == 2015
    assert "changes within a minute" in refused.get_json()["error"]["message"]
    assert make(acme, "r").status_code == 403, "another key is counted by itself"
    assert admin.call("GET", "/v1/registries").status_code == 200, "reading goes on"


def test_calls_are_counted_by_themselves(acme: Api, limit: Callable[..., None]) -> None:
    limit(changes=1, calls=2)
    called = [acme.call("POST", "/v1/algo/acme/None/1.0.0", 1) for _ in range(3)]
    assert [response.status_code for response in called] == [404, 404, 429]
    assert "More than 2 calls within a minute" in called[-1].get_json()["error"]["message"]


def test_processes_count_together(admin: Api, limit: Callable[..., None]) -> None:
    limit(changes=2)
    make(admin, "r")
    _rate_limits_of.cache_clear()  # as in another process
    make(admin, "r")
    _rate_limits_of.cache_clear()
    assert make(admin, "r").status_code == 429


def test_redis_on_a_socket_is_one_place_for_all_processes(
    admin: Api, limit: Callable[..., None], tmp_path: Path
) -> None:
    with private_redis(tmp_path / "r") as private:
        limit(f"redis+socket://{private.socket}?virtual_host=7", changes=2)
        for status in (200, 200, 429):
            _rate_limits_of.cache_clear()  # as in another process
            assert make(admin, "r").status_code == status
        with redis.Redis.from_url(private.url(7)) as client:
            assert client.dbsize() > 0


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("redis://h:1/2", "redis://h:1/2"),
        ("redis+socket:///run/r.sock", "redis+unix:///run/r.sock"),
        ("redis+socket:///run/r.sock?virtual_host=3", "redis+unix:///run/r.sock?db=3"),
        ("rediss://:p@h/1?ssl_cert_reqs=CERT_REQUIRED", "rediss://:p@h/1?ssl_cert_reqs=required"),
        ("rediss://:p@h/1?ssl_cert_reqs=none", "rediss://:p@h/1?ssl_cert_reqs=none"),
    ],
)
def test_an_address_of_redis_is_spelled_as_each_library_takes_it(given: str, spelled: str) -> None:
    assert to_redis_py_url(given) == spelled


def test_a_redis_that_hangs_is_asked_once_and_then_left_alone(admin: Api, limit: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        limit(f"redis://127.0.0.1:{silent.getsockname()[1]}", changes=2)
        assert [make(admin, "r").status_code for _ in range(3)] == [200, 200, 429]
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", ""])
def test_without_redis_each_process_counts_for_itself(admin: Api, limit: Callable[..., None], url: str) -> None:
    limit(url, changes=2)
    assert [make(admin, "r").status_code for _ in range(3)] == [200, 200, 429]


def test_reads_are_counted_apart(admin: Api, limit: Callable[..., None]) -> None:
    limit(reads=2)
    assert [admin.call("GET", "/v1/registries").status_code for _ in range(3)] == [200, 200, 429]
    assert make(admin, "r").status_code == 200


def test_zero_is_no_limit(admin: Api, limit: Callable[..., None]) -> None:
    limit(changes=0, reads=0)
    assert {admin.call("GET", "/v1/registries").status_code for _ in range(20)} == {200}


def test_who_guesses_keys_is_slowed_down(app: Flask, admin: Api, limit: Callable[..., None]) -> None:
    limit(unknown=2)
    from tests.service.api.invocation import Api

    guesser = Api(app, "lsguess")
    assert [guesser.call("GET", "/v1/registries").status_code for _ in range(4)] == [401, 401, 429, 429]
    assert admin.call("GET", "/v1/registries").status_code == 200


def test_who_guesses_keys_from_many_addresses_of_one_network_is_slowed_down_too(
    app: Flask, limit: Callable[..., None]
) -> None:
    limit(unknown=2)
    client = app.test_client()

    def guess(address: str) -> int:
        return client.get("/v1/registries", environ_overrides={"REMOTE_ADDR": address}).status_code

    assert [guess(f"2001:db8::{number}") for number in range(1, 5)] == [401, 401, 429, 429]
    assert guess("2001:db8:0:1::1") == 401


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/openapi.json"])
def test_what_needs_no_key_has_no_limit(admin: Api, limit: Callable[..., None], path: str) -> None:
    limit(reads=1, unknown=1)
    assert {admin.app.test_client().get(path).status_code for _ in range(4)} == {200}
