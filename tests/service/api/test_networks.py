"""Forbidden addresses in requests are rejected with a message when they are recorded."""

from typing import Any

import pytest

from shared.net.address_rules import registry_networks, source_networks
from shared.settings import settings
from tests.service.api.invocation import Api

FORBIDDEN = ("169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "metadata.google.internal", "[fd00:ec2::254]")


@pytest.mark.parametrize("host", FORBIDDEN)
def test_a_registry_or_source_at_a_metadata_service_is_refused(admin: Api, acme: Api, host: str) -> None:
    message = admin.expect_refusal(400, 2015, "POST", "/v1/registries", {"registry_url": f"{host}:5000"})
    assert "never connects to" in message
    source = {"repository_https_url": f"https://{host}/team/hello.git"}
    body = {"name": "Hello", "details": {"label": "Hello"}, "settings": {}, "source": source}
    assert "never connects to" in acme.expect_refusal(400, 2015, "POST", "/v1/algorithms/acme", body)
    path = acme.make_algorithm("acme")
    assert "never connects to" in acme.expect_refusal(400, 2015, "PUT", path, {"source": source})
    registry_id = admin.make_registry()
    admin.expect_refusal(400, 2015, "PUT", f"/v1/registries/{registry_id}", {"registry_url": f"{host}:5000"})


def test_a_network_that_is_not_allowed_is_refused(admin: Api, acme: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REGISTRY", "SOURCE"):
        monkeypatch.setenv(f"LONGSHORE_{name}_NETWORKS", "0.0.0.0/0,!127.0.0.0/8,!10.0.0.0/8")
    for cached in (settings, registry_networks, source_networks):
        cached.cache_clear()
    body: dict[str, Any] = {"registry_url": "localhost:5000"}
    assert "LONGSHORE_REGISTRY_NETWORKS" in admin.expect_refusal(400, 2015, "POST", "/v1/registries", body)
    through = {"registry_url": "registry.example.com", "proxy_url": "http://10.0.0.5:6379"}
    assert "LONGSHORE_REGISTRY_NETWORKS" in admin.expect_refusal(400, 2015, "POST", "/v1/registries", through)
    source = {"repository_https_url": "https://10.1.2.3/team/hello.git"}
    body = {"name": "Hello", "details": {"label": "Hello"}, "settings": {}, "source": source}
    assert "LONGSHORE_SOURCE_NETWORKS" in acme.expect_refusal(400, 2015, "POST", "/v1/algorithms/acme", body)
    admin.make_registry("192.0.2.1:5000")
