"""Ports of one machine: the public one, which must be free, and two private ones."""

import random
import socket

from shared.settings import SettingsError

PRIVATE_PORTS = range(20_000, 32_000)
"""Below the range from which the kernel gives ports to outgoing connections (Linux: 32768 and above)."""


def require_free(host: str, port: int) -> int:
    """The port, or where that is 0 one that is free at this moment.

    Raises:
        SettingsError: somebody listens on it, or the address is none of this machine's.
    """
    if port == 0:
        return free_port(host)
    try:
        with _bound(host, port):
            return port
    except OSError as error:
        raise SettingsError(
            f"LONGSHORE_HOST, LONGSHORE_PORT: cannot listen on {host}:{port}: {error.strerror}; "
            "choose another port with --port."
        ) from None


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which nobody listens at this moment.

    Raises:
        SettingsError: none was found.
    """
    for port in random.sample(PRIVATE_PORTS, 200):
        try:
            with _bound(host, port):
                return port
        except OSError:
            continue
    raise SettingsError(f"LONGSHORE_HOST: no free port found on {host}.")


def _bound(host: str, port: int) -> socket.socket:
    trial = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        trial.bind((host, port))
    except BaseException:
        trial.close()
        raise
    return trial
