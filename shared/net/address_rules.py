"""The rules about which addresses Longshore connects to when a caller names the host of a registry or webhook.

They are checked when the host is recorded, and again at each connection, after the name was resolved: a name can
resolve differently later (DNS rebinding). A connection is made to the very address that was checked.
"""

import ipaddress
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from shared.cancellation import ends_within
from shared.errors import InvalidValueError
from shared.settings import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

RESOLVE_TIMEOUT_SECONDS = 3.0
"""How long `check_new_host` waits for the name server."""

FORBIDDEN_NETWORKS = tuple(
    (ipaddress.ip_network(network), description)
    for network, description in (
        ("169.254.0.0/16", "a link-local address, where clouds keep their metadata"),
        ("fe80::/10", "a link-local address"),
        ("fd00:ec2::/32", "the metadata service of a cloud"),
        ("100.100.100.200/32", "the metadata service of a cloud"),
        ("192.0.0.192/32", "the metadata service of a cloud"),
        ("168.63.129.16/32", "the platform service of a cloud"),
        ("fd20:ce::254/128", "the metadata service of a cloud"),
        ("0.0.0.0/8", "not the address of a host"),
        ("::/128", "not the address of a host"),
        ("224.0.0.0/4", "a multicast address"),
        ("ff00::/8", "a multicast address"),
        ("255.255.255.255/32", "the broadcast address"),
    )
)
"""Networks that no setting allows: services there trust every client."""
PRIVATE_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "192.0.0.0/24", "198.18.0.0/15"),
        *("127.0.0.0/8", "fc00::/7", "::1/128", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"),
    )
)
"""Networks outside of the public internet, and networks of IPv6 whose addresses contain IPv4 addresses."""
_METADATA_NAMES = frozenset(
    ("metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal")
)
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_INET_ATON_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


class ForbiddenAddressError(InvalidValueError):
    """Raised for an address that must not be connected to. The text is a sentence for an administrator.

    `for_caller` is the same sentence without the address of a name, which may be a name of the private network.
    """

    def __init__(self, message: str, for_caller: str | None = None) -> None:
        super().__init__(message)
        self.for_caller = for_caller or message


@dataclass(frozen=True)
class AllowedNetworks:
    """The addresses that one setting allows: those in one of `allowed` and in none of `excepted`."""

    setting: str
    allowed: tuple[Network, ...]
    excepted: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, setting: str, entries: Sequence[str]) -> "AllowedNetworks":
        """Read the entries of a setting: networks; those with a leading `!` are excepted.

        Raises:
            ValueError: an entry is not a network.
        """
        allowed = tuple(ipaddress.ip_network(entry) for entry in entries if not entry.startswith("!"))
        excepted = tuple(ipaddress.ip_network(entry[1:]) for entry in entries if entry.startswith("!"))
        return cls(setting, allowed, excepted)

    def check(self, address: str, host: str) -> None:
        """Refuse an address to which `host` resolved, if it is not allowed.

        Raises:
            ForbiddenAddressError: it is not allowed.
        """
        name = address if host == address else f"{host} ({address})"
        for candidate in _candidates(address):
            for network, description in FORBIDDEN_NETWORKS:
                if candidate in network:
                    reason = f"is {description}: Longshore never connects to it."
                    raise ForbiddenAddressError(f"{name} {reason}", f"{host} {reason}")
            if not self._contains(candidate):
                reason = f"is in no network that is allowed here; an operator allows networks with {self.setting}."
                raise ForbiddenAddressError(f"{name} {reason}", f"{host} {reason}")

    def contains(self, address: str) -> bool:
        """Return whether an address, and the IPv4 address in it if any, is in these networks."""
        return all(self._contains(candidate) for candidate in _candidates(address))

    def _contains(self, candidate: Address) -> bool:
        return any(candidate in network for network in self.allowed) and not any(
            candidate in network for network in self.excepted
        )

    def allows_this_machine(self, address: str) -> bool:
        """Return whether an address is not one of this machine, or is explicitly allowed.

        The addresses of interfaces lead to the same services as loopback. They are allowed if loopback is allowed, or
        if they are in an allowed network other than 0.0.0.0/0 and ::/0.
        """
        if not _is_of_this_machine(address) or self.contains("127.0.0.1"):
            return True
        return all(
            any(candidate in network for network in self.allowed if network.prefixlen)
            for candidate in _candidates(address)
        )

    def check_unresolved(self, host: str) -> None:
        """Refuse a host without resolving it, when a proxy will resolve it.

        Raises:
            ForbiddenAddressError: it is an address that is not allowed, or a name of one.
        """
        bare = _bare_host(host)
        if is_loopback_host(bare):
            self.check("127.0.0.1", bare)
        elif is_ip_address(bare):
            self.check(bare, bare)
        elif is_legacy_ipv4(bare):
            raise ForbiddenAddressError(f"{bare} is another notation of an IPv4 address: write the address.")

    def resolve(self, host: str, port: int) -> list[str]:
        """Return all addresses of a host, each of them checked, in the order to try them.

        Raises:
            ForbiddenAddressError: one of them is not allowed.
            socket.gaierror: the name cannot be resolved.
        """
        bare = _bare_host(host)
        try:
            entries = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)
        except UnicodeError:  # an empty label, or one with more than 63 characters
            raise socket.gaierror(socket.EAI_NONAME, "invalid host name") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        for address in addresses:
            self.check(address, bare)
        return addresses

    def check_new_host(self, host: str, port: int) -> None:
        """Refuse a host that is about to be recorded. A name that does not resolve yet is accepted.

        Not within a transaction: it may take `RESOLVE_TIMEOUT_SECONDS`.

        Raises:
            ForbiddenAddressError: one of its addresses is not allowed.
        """
        with suppress(OSError, UnicodeError):  # it is checked again at the connection
            ends_within(RESOLVE_TIMEOUT_SECONDS, lambda: self.resolve(host, port), name="resolve-host")


@cache
def registry_networks() -> AllowedNetworks:
    """Return the networks of registries, their token servers and their storage."""
    return AllowedNetworks.parse("LONGSHORE_REGISTRY_NETWORKS", settings().registry_networks)


@cache
def source_networks() -> AllowedNetworks:
    return AllowedNetworks.parse("LONGSHORE_SOURCE_NETWORKS", settings().source_networks)


@cache
def source_trusted_networks() -> AllowedNetworks:
    """Return the networks outside of the public internet whose git servers' errors callers may see."""
    return AllowedNetworks.parse("LONGSHORE_SOURCE_TRUSTED_NETWORKS", settings().source_trusted_networks)


@cache
def webhook_networks() -> AllowedNetworks:
    return AllowedNetworks.parse("LONGSHORE_WEBHOOK_NETWORKS", settings().webhook_networks)


@cache
def index_networks() -> AllowedNetworks:
    """Return the networks of files that the package index links to on other hosts."""
    return AllowedNetworks.parse("LONGSHORE_BUILD_INDEX_NETWORKS", settings().build_index_networks)


def is_ip_address(host: str) -> bool:
    """Return whether a host is an address and not a name. IPv6 may be in brackets."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_loopback_host(host: str) -> bool:
    """Return whether a host is `localhost` or a loopback address, without resolving it."""
    return host == "localhost" or (is_ip_address(host) and ipaddress.ip_address(host.strip("[]")).is_loopback)


def is_public_address(address: str) -> bool:
    """Return whether an address belongs to the public internet, and not to this machine."""
    return all(candidate.is_global for candidate in _candidates(address)) and not _is_of_this_machine(address)


def is_legacy_ipv4(host: str) -> bool:
    """Return whether inet_aton may read a host as an IPv4 address in an unusual notation, such as 127.1 or 0x7f.1."""
    return _INET_ATON_NUMBER.fullmatch(host.rpartition(".")[2]) is not None and not is_ip_address(host)


def _is_of_this_machine(address: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:  # no interface has it (EADDRNOTAVAIL)
        return False
    return True


def _candidates(address: str) -> list[Address]:
    return _with_embedded_ipv4(ipaddress.ip_address(address.partition("%")[0]))


def _with_embedded_ipv4(address: Address) -> list[Address]:
    """Return the address, and the IPv4 address that it contains if any (RFC 4291, 3056 and 6052)."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    embedded = address.sixtofour
    if any(address in network for network in _NAT64) or (int(address) >> 32 == 0 and int(address) > 1):
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return [address] if embedded is None else [address, embedded]


def _bare_host(host: str) -> str:
    """Return the host without brackets and trailing dot.

    Raises:
        ForbiddenAddressError: it is the name of a metadata service.
    """
    bare = host.strip("[]").rstrip(".")
    if bare.lower() in _METADATA_NAMES:
        raise ForbiddenAddressError(f"{bare} is the metadata service of a cloud: Longshore never connects to it.")
    return bare
