"""Proxies: the registries that are reached through one, and the rules that still apply."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.db.models import Registry
from shared.errors import ErrorClass, WorkError
from shared.net.address_rules import AllowedNetworks
from shared.net.connections import Proxy, is_excepted, new_connection
from shared.registries.access import client_of
from shared.settings import settings
from tests.environment import longshore_environment

NO_PRIVATE = AllowedNetworks.parse("SETTING", ("0.0.0.0/0", "::/0", "!127.0.0.0/8", "!::1/128", "!10.0.0.0/8"))


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path) -> Iterator[None]:
    with longshore_environment(
        tmp_path, tables=False, registry_proxy="http://proxy.example.com:3128", registry_no_proxy="in.example.com, .lan"
    ):
        yield


@pytest.mark.parametrize(
    ("host", "excepted"),
    [("in.example.com", True), ("IN.example.com.", True), ("a.in.example.com", False), ("a.lan", True), ("lan", False)],
)
def test_hosts_that_are_reached_without_a_proxy(host: str, excepted: bool) -> None:
    assert is_excepted(host, settings().registry_no_proxy) == excepted


@pytest.mark.parametrize(
    ("url", "own", "through"),
    [
        ("registry.example.com", None, "proxy.example.com"),
        ("registry.example.com", "http://own.example.com:8080", "own.example.com"),
        ("in.example.com:5000", None, None),
        ("in.example.com:5000", "http://own.example.com:8080", "own.example.com"),
    ],
)
def test_a_registrys_own_proxy_takes_precedence_over_the_operators(
    url: str, own: str | None, through: str | None
) -> None:
    registry = Registry(registry_url=url, proxy_url=own, verify_tls=True, plain_http=False)
    with client_of(registry, None) as client:
        proxy = client._http._proxy
    assert (proxy and proxy.host) == through


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.1.2.3", "169.254.169.254", "metadata.google.internal", "2130706433", "0x7f000001"],
)
def test_a_forbidden_address_is_forbidden_through_a_proxy_too(host: str) -> None:
    proxy = Proxy.parse("http://proxy.example.com:3128")
    with pytest.raises(WorkError) as refused:
        new_connection(f"https://{host}:443", ssl.create_default_context(), NO_PRIVATE, proxy=proxy, timeout=1.0)
    assert refused.value.error_class == ErrorClass.INVALID


def test_a_recorded_proxy_must_be_in_a_network_of_registries() -> None:
    recorded = Proxy.parse("http://10.0.0.5:3128", NO_PRIVATE)
    connection = new_connection(
        "http://registry.example.com:80", ssl.create_default_context(), NO_PRIVATE, proxy=recorded, timeout=1.0
    )
    with pytest.raises(WorkError) as refused:
        connection.connect()
    assert refused.value.error_class == ErrorClass.INVALID
