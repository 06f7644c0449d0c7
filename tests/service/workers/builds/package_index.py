"""A package index on loopback (simple repository API, PEP 503), with a password and a package that it holds back."""

import base64
import hashlib
import io
import threading
import zipfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from typing_extensions import override

HELD = "held"


def wheel_of(name: str, version: str, modules: Mapping[str, str]) -> bytes:
    """A wheel (PEP 427) with these modules."""
    info = f"{name}-{version}.dist-info"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        for path, text in modules.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in modules))
    return content.getvalue()


class PackageIndex:
    """Serves wheels that are made on the spot. `asked_for_held` is set once somebody waits for the package `held`."""

    def __init__(self, *, user: str, password: str) -> None:
        self.user, self.password = user, password
        self.wheels: dict[str, bytes] = {}
        self.asked_for_held = threading.Event()
        self._released = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.index = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        """The index's URL, with its password."""
        return f"http://{self.user}:{self.password}@127.0.0.1:{self._server.server_port}/simple/"

    def add(self, name: str, version: str, modules: Mapping[str, str]) -> str:
        """Put a wheel into the index, and give its SHA-256."""
        content = wheel_of(name, version, modules)
        self.wheels[f"{name}-{version}-py3-none-any.whl"] = content
        return hashlib.sha256(content).hexdigest()

    def hold(self) -> None:
        """Tell that somebody waits, and let him wait."""
        self.asked_for_held.set()
        self._released.wait()

    def admits(self, authorization: str) -> bool:
        """Whether the header has the index's own user and password."""
        return authorization == "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    index: PackageIndex


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        index = self.server.index
        if not index.admits(self.headers.get("Authorization", "")):
            self._answer(401, b"who are you", **{"WWW-Authenticate": 'Basic realm="index"'})
            return
        *_, project, last = self.path.split("/")
        if project == HELD:
            index.hold()
        if last in index.wheels:
            self._answer(200, index.wheels[last])
            return
        files = [file for file in index.wheels if file.split("-")[0].lower() == project]
        page = "".join(f'<a href="{file}">{file}</a>\n' for file in files)
        self._answer(200 if files else 404, page.encode(), **{"Content-Type": "text/html"})

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
