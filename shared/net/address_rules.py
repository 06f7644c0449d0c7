"""Which addresses Longshore speaks to on somebody's word: a registry's, a repository's, a webhook's.

Checked when the address is recorded, and again at the connection, after the name was resolved: what a name stands for
can change in between (DNS rebinding). Whoever connects goes to the very address that was checked.

Hosts as addresses name them: what one is by its very spelling, before any name is resolved.
"""

import ipaddress
import re
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from shared.settings import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

RESOLVE_SECONDS = 3.0
"""How long the check of an address that is being recorded waits for the name server."""

NEVER: tuple[tuple[str, str], ...] = (
    ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
    ("fe80::/10", "link-local"),
    ("fd00:ec2::/32", "the metadata service of a cloud"),
    ("100.100.100.200/32", "the metadata service of a cloud"),
    ("192.0.0.192/32", "the metadata service of a cloud"),
    ("168.63.129.16/32", "the platform service of a cloud"),
    ("fd20:ce::254/128", "the metadata service of a cloud"),
    ("0.0.0.0/8", "no address of a host"),
    ("::/128", "no address of a host"),
    ("224.0.0.0/4", "a multicast address"),
    ("ff00::/8", "a multicast address"),
    ("255.255.255.255/32", "the broadcast address"),
)
"""Networks that no setting opens: what answers there trusts whoever asks."""
_NEVER = tuple((ipaddress.ip_network(text), what) for text, what in NEVER)
_METADATA_NAMES = frozenset(
    ("metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")
)
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


class ForbiddenAddressError(ValueError):
    """An address that is not spoken to here; the text is a sentence for the caller."""


@dataclass(frozen=True)
class AllowedNetworks:
    """What one setting allows: the addresses in one of `inside` and in none of `outside`."""

    setting: str
    inside: tuple[Network, ...]
    outside: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, setting: str, entries: Sequence[str]) -> "AllowedNetworks":
        """Read the entries of a setting: networks, those with `!` in front excepted.

        Raises:
            ValueError: one is no network.
        """
        inside = tuple(ipaddress.ip_network(entry) for entry in entries if not entry.startswith("!"))
        outside = tuple(ipaddress.ip_network(entry[1:]) for entry in entries if entry.startswith("!"))
        return cls(setting, inside, outside)

    def check(self, address: str, host: str) -> None:
        """Refuse an address that `host` stands for and that is not spoken to.

        Raises:
            ForbiddenAddressError: it is not.
        """
        for meant in _meanings(ipaddress.ip_address(address.partition("%")[0])):
            for network, what in _NEVER:
                if meant in network:
                    raise ForbiddenAddressError(f"{_named(host, address)} is {what}: it is never spoken to.")
            if not any(meant in network for network in self.inside) or any(meant in net for net in self.outside):
                raise ForbiddenAddressError(
                    f"{_named(host, address)} is in no network that may be named here; an operator allows networks "
                    f"with {self.setting}."
                )

    def check_words(self, host: str) -> None:
        """Refuse a host for what is known of it without resolving it, where somebody else will.

        Raises:
            ForbiddenAddressError: it is an address that is not spoken to, or a name for one.
        """
        bare = _named_host(host)
        address = _address_in_words(bare)
        if address is not None:
            self.check(address, bare)
        elif passes_for_an_address(bare):
            raise ForbiddenAddressError(f"{bare} is another spelling of an address: write the address.")

    def resolve(self, host: str, port: int) -> list[str]:
        """Every address that a host stands for, all of them checked, in the order to try them.

        Raises:
            ForbiddenAddressError: one of them is not spoken to.
            socket.gaierror: the name cannot be resolved.
        """
        bare = _named_host(host)
        found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            self.check(address, bare)
        return addresses

    def check_recorded(self, host: str, port: int) -> None:
        """Refuse a host that is being recorded; a name that stands for nothing yet is taken as it is.

        Not within a transaction: it may take `RESOLVE_SECONDS`.

        Raises:
            ForbiddenAddressError: it stands for an address that is not spoken to.
        """
        refusals: list[ForbiddenAddressError] = []

        def look() -> None:
            try:
                self.resolve(host, port)
            except ForbiddenAddressError as refusal:
                refusals.append(refusal)
            except (OSError, UnicodeError):
                return  # it is asked again at the connection

        # In a thread, because nothing else bounds the time of a name server.
        thread = threading.Thread(target=look, name="resolving", daemon=True)
        thread.start()
        thread.join(RESOLVE_SECONDS)
        if refusals:
            raise refusals[0]


def _meanings(address: Address) -> list[Address]:
    """The address, and the IPv4 address inside of it where it spells one (RFC 4291, 3056 and 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    inner = address.sixtofour
    if any(address in network for network in _NAT64) or (int(address) >> 32 == 0 and int(address) > 1):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return [address] if inner is None else [address, inner]


def _named_host(host: str) -> str:
    """The host without what surrounds it.

    Raises:
        ForbiddenAddressError: it is a name of a metadata service.
    """
    bare = host.strip("[]").rstrip(".")
    if bare.lower() in _METADATA_NAMES:
        raise ForbiddenAddressError(f"{bare} is the metadata service of a cloud: it is never spoken to.")
    return bare


def _address_in_words(bare: str) -> str | None:
    """The address that a host is, or stands for wherever it is resolved."""
    if is_loopback_host(bare):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return None


def _named(host: str, address: str) -> str:
    return address if host == address else f"{host} ({address})"


@cache
def registry_networks() -> AllowedNetworks:
    """What a registry, and whatever it sends us to, may be."""
    return AllowedNetworks.parse("LONGSHORE_REGISTRY_NETWORKS", settings().registry_networks)


@cache
def source_networks() -> AllowedNetworks:
    """What a repository elsewhere may be."""
    return AllowedNetworks.parse("LONGSHORE_SOURCE_NETWORKS", settings().source_networks)


@cache
def webhook_networks() -> AllowedNetworks:
    """What a webhook may be."""
    return AllowedNetworks.parse("LONGSHORE_WEBHOOK_NETWORKS", settings().webhook_networks)


_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


def is_address(host: str) -> bool:
    """Whether a host is an address, IPv6 with or without brackets, and no name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_loopback_host(host: str) -> bool:
    """Whether a host (a name or an address) is this machine by its very name."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host.strip("[]")).is_loopback)


def passes_for_an_address(host: str) -> bool:
    """Whether a host is no IPv4 address but one to inet_aton, as 127.1 and 0x7f.1 are: it would turn out elsewhere."""
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None and not is_address(host)
