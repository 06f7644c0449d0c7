"""Find and check ports of this machine."""

import random
import socket

from shared.settings import SettingsError

PRIVATE_PORTS = range(20_000, 32_000)
"""Below the range from which the kernel gives ports to outgoing connections (Linux: 32768 and above)."""
MAX_ATTEMPTS = 200


def check_free(host: str, port: int) -> None:
    """Check that a process can listen on the port.

    Raises:
        OSError: the port is in use, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def find_free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free at this moment.

    Raises:
        SettingsError: none was found.
    """
    for port in random.sample(PRIVATE_PORTS, MAX_ATTEMPTS):
        try:
            check_free(host, port)
        except OSError:
            continue
        return port
    raise SettingsError(f"LONGSHORE_HOST: no free port found on {host}.")


def require_free_port(host: str, port: int) -> int:
    """Return the port, or for 0 one that is free at this moment.

    Raises:
        SettingsError: the port is in use, or the address is not one of this machine.
    """
    if port == 0:
        return find_free_port(host)
    try:
        check_free(host, port)
    except OSError as error:
        raise SettingsError(
            f"LONGSHORE_HOST, LONGSHORE_PORT: cannot listen on {host}:{port}: {error.strerror}; "
            "choose another port with --port."
        ) from None
    return port
