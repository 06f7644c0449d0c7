"""Connections go to checked addresses, and a name is resolved once: later answers of the name server do not matter."""

import socket
from typing import Any

import pytest

from shared.errors import ErrorClass, WorkError
from shared.net.address_rules import AllowedNetworks
from shared.net.connections import tls_context
from shared.net.http import HttpTransport, Timeouts
from tests.unit.shared.registry.fake_registry import Reply, fake_registry

NO_LOOPBACK = AllowedNetworks.parse("LONGSHORE_X_NETWORKS", ("0.0.0.0/0", "::/0", "!127.0.0.0/8", "!::1/128"))


def test_a_forbidden_address_is_not_connected_to() -> None:
    with fake_registry(Reply(200)) as server:
        transport = HttpTransport(tls_context(), Timeouts(), networks=NO_LOOPBACK)
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(WorkError, match="in no network that is allowed here") as caught:
                transport.request("GET", f"http://{host}:{server.server_port}/", {})
            assert caught.value.error_class is ErrorClass.INVALID
        assert server.requests == []


def test_a_name_is_resolved_once_and_the_checked_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server returns an allowed address first and a forbidden one afterwards (DNS rebinding)."""
    resolved: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
        if host != "rebinding.example.com":
            return real(host, port, *arguments, **options)
        resolved.append(host)
        return real("127.0.0.1" if len(resolved) == 1 else "169.254.169.254", port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with fake_registry(Reply(200, b"fine")) as server:
        transport = HttpTransport(tls_context(), Timeouts())
        response = transport.request("GET", f"http://rebinding.example.com:{server.server_port}/", {})
        transport.close()
        assert (response.body, len(resolved)) == (b"fine", 1)
        assert server.requests[0].headers["host"] == f"rebinding.example.com:{server.server_port}"
        with pytest.raises(WorkError, match="never connects to"):
            transport.request("GET", f"http://rebinding.example.com:{server.server_port}/", {})


def test_a_name_that_cannot_be_resolved_is_transient() -> None:
    with pytest.raises(WorkError, match="cannot be resolved") as caught:
        HttpTransport(tls_context(), Timeouts()).request("GET", "http://no-such-host.invalid/", {})
    assert caught.value.error_class is ErrorClass.TRANSIENT
