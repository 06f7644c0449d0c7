"""Run a private Redis server without persistence, on a loopback port and a private socket."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev.services.processes import free_port, port_answers, required_program, running

DATABASES = 64


@dataclass(frozen=True)
class PrivateRedis:
    """A running Redis server with `DATABASES` numbered databases."""

    port: int
    socket: Path
    """In a deep directory its path may be too long to connect to (107 bytes, unix(7))."""

    def url(self, database: int = 0) -> str:
        return f"redis://127.0.0.1:{self.port}/{database}"


@contextmanager
def private_redis(directory: Path, *, port: int | None = None) -> Iterator[PrivateRedis]:
    """Run a Redis server during the block.

    Raises:
        ServiceFailedError: redis-server is not installed or does not start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    redis = PrivateRedis(port or free_port(), directory / "redis.sock")
    command = [required_program("redis-server"), "--bind", "127.0.0.1", "--port", str(redis.port)]
    command += ["--unixsocket", str(redis.socket), "--unixsocketperm", "700", "--dir", str(directory)]
    command += ["--databases", str(DATABASES), "--save", "", "--appendonly", "no"]
    with running("redis-server", command, log=directory / "redis.log", ready=lambda: port_answers(redis.port), grace=5):
        yield redis
