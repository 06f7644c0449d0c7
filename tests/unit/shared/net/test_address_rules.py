"""The address rules: metadata services are always forbidden, in any notation; settings decide about the rest."""

import socket

import pytest

from shared.net.address_rules import AllowedNetworks, ForbiddenAddressError
from shared.settings import SettingsError, load_settings

EVERYTHING = AllowedNetworks.parse("LONGSHORE_X_NETWORKS", ("0.0.0.0/0", "::/0"))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "0.0.0.0",  # noqa: S104 - nobody binds to it
        "0.1.2.3",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "febf::1",
        "ff02::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::169.254.169.254",
        "2002:a9fe:a9fe::1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
    ],
)
def test_addresses_that_are_always_forbidden(address: str) -> None:
    with pytest.raises(ForbiddenAddressError, match="never connects to"):
        EVERYTHING.check(address, address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "192.0.2.1", "2001:db8::1", "100.100.100.201"])
def test_other_addresses_are_allowed_by_default(address: str) -> None:
    EVERYTHING.check(address, address)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("10.9.0.1", False),
        ("192.0.2.1", False),
        ("::ffff:10.9.0.1", False),
        ("2002:0a09:0001::", False),
        ("2001:db8::1", True),
    ],
)
def test_networks_and_exceptions_from_them(address: str, allowed: bool) -> None:
    some = AllowedNetworks.parse("LONGSHORE_X_NETWORKS", ("10.0.0.0/8", "!10.9.0.0/16", "2001:db8::/32", "2002::/16"))
    if allowed:
        some.check(address, address)
        return
    with pytest.raises(ForbiddenAddressError, match="LONGSHORE_X_NETWORKS"):
        some.check(address, address)


@pytest.mark.parametrize("host", ["metadata.google.internal", "METADATA.google.internal.", "instance-data"])
def test_names_of_metadata_services_are_refused_without_resolving_them(host: str) -> None:
    with pytest.raises(ForbiddenAddressError, match="metadata service"):
        EVERYTHING.resolve(host, 80)


def test_every_address_of_a_name_is_checked() -> None:
    assert "127.0.0.1" in EVERYTHING.resolve("localhost", 80)
    without_loopback = AllowedNetworks.parse("LONGSHORE_X_NETWORKS", ("0.0.0.0/0", "::/0", "!127.0.0.0/8", "!::1/128"))
    with pytest.raises(ForbiddenAddressError, match=r"localhost \("):
        without_loopback.resolve("localhost", 80)
    with pytest.raises(ForbiddenAddressError):
        without_loopback.check_new_host("localhost", 80)


@pytest.mark.parametrize("spelled", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"])
def test_other_notations_of_an_address_are_read_as_the_resolver_reads_them(spelled: str) -> None:
    with pytest.raises(ForbiddenAddressError):
        EVERYTHING.resolve(spelled, 80)


def test_a_name_that_does_not_resolve_yet_is_accepted() -> None:
    EVERYTHING.check_new_host("no-such-host.invalid", 443)
    with pytest.raises(socket.gaierror):
        EVERYTHING.resolve("no-such-host.invalid", 443)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "example.com", "!", "10.0.0.1/8"])
def test_a_setting_that_is_not_a_list_of_networks_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("LONGSHORE_SOURCE_NETWORKS", text)
    with pytest.raises(SettingsError, match="LONGSHORE_SOURCE_NETWORKS: must be networks"):
        load_settings()
