"""Variables that were renamed, are unknown, or were set by Kubernetes."""

import pytest

from shared.settings import Settings, SettingsError, load_settings, unknown_settings
from shared.settings.parsing import PREFIX, RENAMED

SERVICE_LINKS = {
    "LONGSHORE_PORT": "tcp://10.0.0.1:80",
    "LONGSHORE_PORT_80_TCP": "tcp://10.0.0.1:80",
    "LONGSHORE_PORT_80_TCP_ADDR": "10.0.0.1",
    "LONGSHORE_PORT_80_TCP_PORT": "80",
    "LONGSHORE_PORT_80_TCP_PROTO": "tcp",
    "LONGSHORE_SERVICE_HOST": "10.0.0.1",
    "LONGSHORE_SERVICE_PORT": "80",
    "LONGSHORE_SERVICE_PORT_HTTP": "80",
    "LONGSHORE_API_PORT": "tcp://10.0.0.2:8081",
    "LONGSHORE_API_PORT_8081_TCP": "tcp://10.0.0.2:8081",
    "LONGSHORE_API_SERVICE_HOST": "10.0.0.2",
    "LONGSHORE_POSTGRES_RW_SERVICE_PORT_POSTGRES": "5432",
    "LONGSHORE_REDIS_PORT": "tcp://[fd00::1]:6379",
}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_variable_stops_the_start_and_names_the_new_one(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    monkeypatch.setenv(old, "1")
    with pytest.raises(SettingsError, match=f"^{old}: .*{new}"):
        load_settings()
    assert new in {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}


def test_an_unknown_variable_is_told_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_LEASE_SECOND", "30")
    monkeypatch.setenv("LONGSHORE_XYZZY", "1")
    assert unknown_settings() == {
        "LONGSHORE_LEASE_SECOND": "no such setting; did you mean LONGSHORE_LEASE_SECONDS?",
        "LONGSHORE_XYZZY": "no such setting; `longshore settings` lists them all.",
    }
    load_settings()


def test_variables_of_kubernetes_services_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in SERVICE_LINKS.items():
        monkeypatch.setenv(variable, value)
    assert unknown_settings() == {}
    assert (load_settings().port, load_settings().api_port) == (8080, 8081)


def test_a_port_that_an_operator_sets_is_no_service_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_PORT", "9090")
    assert load_settings().port == 9090
    monkeypatch.setenv("LONGSHORE_PORT", "tcp:9090")
    with pytest.raises(SettingsError, match=r"^LONGSHORE_PORT: "):
        load_settings()
