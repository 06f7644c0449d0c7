"""Make the package index available to a build container on its loopback address, through the engine.

A process in the container (`steps/relay_index.py`) forwards requests over its streams, and a thread of the worker
fetches them. Nothing listens on the worker, the build gets no credentials, and the address ends with the build. Code of
the build can take over the process, so its output is not trusted.
"""

import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hmac import compare_digest
from importlib import resources

from shared.errors import ErrorClass, LongshoreError, WorkError
from workers.builds.environment.container import WORK, AttachedCommand, BuildContainer
from workers.builds.environment.package_index import IndexResponse, PackageIndex, failed, not_found

MAX_REQUEST_LINE = 16 * 1024
_SCRIPT = resources.files("workers.builds.environment") / "steps" / "relay_index.py"
_SHOWN = "package-index/"
"""Replaces the relay's address in a build log."""


class IndexRelay:
    """The package index in one build container."""

    def __init__(self, index: PackageIndex, command: AttachedCommand) -> None:
        self._index = index
        self._command = command
        self._token = secrets.token_urlsafe(32)
        self._lines = command.lines(MAX_REQUEST_LINE)
        self._address = f"http://127.0.0.1:{self._read_port()}/{self._token}/"
        self.failure: WorkError | None = None
        """The error of the last request that failed at the index."""

    @property
    def url(self) -> str:
        """The index's URL inside the container."""
        return f"{self._address}simple/"

    def readable(self, line: str) -> str:
        """Return a line of the build log without the relay's address."""
        return re.sub(rf"{re.escape(self._address)}(files/[^/\s]+/)?", _SHOWN, line)

    def serve(self) -> None:
        """Serve requests until the process in the container ends, or a response cannot be sent completely."""
        try:
            for line in self._lines:
                method, _, path = line.partition(" ")
                token, _, rest = path.removeprefix("/").partition("/")
                if method == "GET" and compare_digest(token.encode(), self._token.encode()):
                    self._serve_path(rest)
                else:
                    self._send(not_found())
        except LongshoreError:
            return  # the container or the build has ended, or a response is incomplete, which pip notices
        finally:
            self._command.close()

    def _serve_path(self, path: str) -> None:
        is_begun = False
        try:
            with self._index.get(path) as response:
                is_begun = True
                self._send(response)
        except WorkError as error:
            self.failure = error
            if is_begun:
                raise
            self._send(failed())

    def _send(self, response: IndexResponse) -> None:
        self._command.write(json.dumps({"status": response.status, "headers": response.headers}).encode() + b"\n")
        for piece in filter(None, response.pieces):
            self._command.write(len(piece).to_bytes(4, "big") + piece)
        self._command.write(bytes(4))

    def _read_port(self) -> int:
        port = next(self._lines, "")
        if not re.fullmatch(r"[0-9]{1,5}", port):
            raise WorkError(
                ErrorClass.UNAVAILABLE,
                "the base image's python3 cannot forward requests to the package index (LONGSHORE_BUILD_INDEX_URL); "
                "the job waits",
            )
        return int(port)


@contextmanager
def index_relay(container: BuildContainer, index: PackageIndex) -> Iterator[IndexRelay]:
    """Serve a package index inside the container during the block.

    Raises:
        WorkCancelledError, WorkError: as `interruptible`; also if the base image cannot run the relay (unavailable).
    """
    command = ["python3", "-I", "-B", "-c", _SCRIPT.read_text("utf-8")]
    with container.attached(command, {}, f"{WORK}/home") as attached:
        relay = IndexRelay(index, attached)
        thread = threading.Thread(target=relay.serve, name="index-relay")
        thread.start()
        try:
            yield relay
        finally:
            index.abort()
            attached.close()
            thread.join()
            index.close()
