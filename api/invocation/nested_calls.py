"""Make the calls that an algorithm requests while its instance works on a call (`workers.runner.outgoing_calls`).

The runner hands them over on the connection of the call above, so what they are a part of is known here and not said by
the container. Nothing from there is trusted: its numbers, lengths and paths are checked, a request that exceeds a limit
is refused without a thread, and a thread lasts no longer than the deadline of the call above.
"""

import http.client
import io
import json
import re
import socket
import sys
import threading
import time
import uuid
from contextlib import ExitStack, suppress
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote_to_bytes

import structlog
from typing_extensions import override
from werkzeug.wrappers import Response

from api.errors import api_error
from api.invocation.call_chain import CHAIN_KEY, CallChain
from api.routing import CALLS_PREFIX
from shared.db.models import Algorithm
from shared.errors import InvalidInputError, LimitReachedError, RequestError, UnavailableError
from shared.instances.endpoints import DeadlineSocket
from shared.net.responses import StrictResponse
from shared.settings import settings

log = structlog.get_logger(__name__)

NUMBER_HEADER = "Longshore-Call"
TARGET_HEADER = "Longshore-Target"
PIECE_BYTES = 64 * 1024
REFUSAL_PAUSE_SECONDS = 0.05
MAX_REFUSAL_PAUSE_SECONDS = 1.0
"""Pauses after refusals, so that an algorithm that requests calls without end keeps no processor busy. They grow with
the number of calls that were made and refused."""
_TARGET = re.compile(rf"{re.escape(CALLS_PREFIX)}[!-~]{{1,4096}}")
_CONTENT_TYPE = re.compile(r"[ -~]{0,200}")
_NUMBER = re.compile(r"[0-9]{1,9}")


class _Request(NamedTuple):
    number: int
    target: str
    content_type: str
    length: int


class NestedCalls:
    """The calls that an algorithm makes during one call of an instance."""

    def __init__(self, chain: CallChain, algorithm: Algorithm, instance_id: str, *, deadline: float) -> None:
        self._above = chain
        self._ended = threading.Event()
        self._chain = chain.below(algorithm, instance_id, deadline=deadline, ended=self._ended)
        self._lock = threading.Lock()
        self._in_progress = 0
        self._refused = 0
        self._sending = threading.Lock()
        self._connection: DeadlineSocket | None = None
        self.has_begun = False
        """Whether the algorithm made a call; it has got the call above, then."""

    @property
    def max_parallel(self) -> int:
        return settings().pipeline_max_parallel

    def connect(self, connection: DeadlineSocket) -> None:
        """Use the connection of the call above."""
        self._connection = connection

    def end(self) -> None:
        """End the connection: nobody waits for responses any more, and calls that have not begun do not begin."""
        self._ended.set()
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)  # a thread that sends on it ends
        with self._sending:
            self._connection = None

    def receive(self, stream: BinaryIO) -> None:
        """Read one request, and make its call in a thread.

        Raises:
            ValueError, http.client.HTTPException: it is invalid.
            OSError: the connection has ended, or the deadline has passed.
        """
        self.has_begun = True
        if self._connection is not None and self._connection.deadline <= time.monotonic():
            raise TimeoutError  # what was read ahead is no reason to go on
        request = _read_head(stream)
        held = ExitStack()  # closed by the thread
        try:
            self._admit(request, held)
            body = _read_body(stream, request.length)
            threading.Thread(target=self._run, args=(request, body, held), name="nested call", daemon=True).start()
        except RequestError as error:
            held.close()
            _skip(stream, request.length)
            time.sleep(REFUSAL_PAUSE_SECONDS)
            self._send(request.number, _refusal(error))
        except BaseException:
            held.close()
            raise

    def _admit(self, request: _Request, held: ExitStack) -> None:
        """Take what the call needs; it is in `held` afterwards.

        Raises:
            RequestError: it is not allowed, or a limit is reached.
        """
        if not _TARGET.fullmatch(request.target) or not _CONTENT_TYPE.fullmatch(request.content_type):
            raise InvalidInputError(f"Inside an algorithm only calls are possible: POST {CALLS_PREFIX}OWNER/NAME.")
        self._above.require_shallow()
        with self._lock:
            if self._in_progress >= self.max_parallel:
                raise LimitReachedError(f"More than {self.max_parallel} calls of one call are in progress.")
            self._in_progress += 1
        held.callback(self._leave)
        held.enter_context(self._chain.slot())

    def _leave(self) -> None:
        with self._lock:
            self._in_progress -= 1

    def _run(self, request: _Request, body: bytes, held: ExitStack) -> None:
        with held:
            try:
                response = Response.from_app(self._chain.application, self._environ(request, body), buffered=True)
            except Exception as error:
                log.exception("nested_call_failed", error=type(error).__name__)
                response = _refusal(UnavailableError("Something went wrong here; the log of the service has it."))
            if response.status_code >= http.client.BAD_REQUEST:
                self._pause()  # with its slot
            # An algorithm that does not read its responses keeps what its calls hold, but for one that is being sent.
            with self._sending:
                held.close()  # before the algorithm has the response, and can make its next call
                self._write(request.number, response)

    def _pause(self) -> None:
        with self._lock:
            self._refused += 1
            seconds = min(MAX_REFUSAL_PAUSE_SECONDS, self._refused * REFUSAL_PAUSE_SECONDS)
        self._ended.wait(seconds)

    def _environ(self, request: _Request, body: bytes) -> dict[str, Any]:
        """Return the WSGI environment of the request (PEP 3333). It has no header of the algorithm but Content-Type."""
        path, _, query = request.target.partition("?")
        return {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "CONTENT_TYPE": request.content_type,
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            CHAIN_KEY: self._chain,
        }

    def _send(self, number: int, response: Response) -> None:
        with self._sending:
            self._write(number, response)

    def _write(self, number: int, response: Response) -> None:
        """Write a response. The caller has the lock."""
        body = response.get_data()
        retry_after = response.headers.get("Retry-After")
        head = {
            NUMBER_HEADER: number,
            "Content-Type": response.content_type,
            "Content-Length": len(body),
            **({"Retry-After": retry_after} if retry_after else {}),
        }
        lines = [f"HTTP/1.1 {response.status_code}", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        if self._connection is not None:
            with suppress(OSError):  # the call above may have ended
                self._connection.sendall("\r\n".join(lines).encode("latin-1") + body)


class CallResponse(StrictResponse):
    """The response to a call; requests of its algorithm come before it on the same connection.

    `nested` makes these calls; None: the algorithm may make none. What a runner does not send is refused, because a
    container could keep this process busy with it: 100 Continue without end, and a byte in each chunk.
    """

    def __init__(self, nested: NestedCalls | None, sock: socket.socket, *arguments: Any, **keywords: Any) -> None:
        super().__init__(sock, *arguments, **keywords)
        self._nested = nested

    @override
    def begin(self) -> None:
        super().begin()
        if self.chunked:
            raise ValueError("a runner does not send chunks")

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status == http.client.PROCESSING and self._nested is not None:
                self._nested.receive(self.fp)
            elif status < http.client.OK:
                raise ValueError("a runner does not send this interim response")
            else:
                return version, status, reason


def _read_head(stream: BinaryIO) -> _Request:
    headers = http.client.parse_headers(stream)
    length = _number(headers, "Content-Length")
    if length > settings().call_max_bytes:
        raise ValueError("the body of a nested call is too large")
    return _Request(
        _number(headers, NUMBER_HEADER), headers.get(TARGET_HEADER, ""), headers.get("Content-Type", ""), length
    )


def _number(headers: http.client.HTTPMessage, name: str) -> int:
    text = headers.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name} is no number")
    return int(text)


def _read_body(stream: BinaryIO, length: int) -> bytes:
    body = stream.read(length)
    if len(body) < length:
        raise http.client.IncompleteRead(body, length - len(body))
    return body


def _skip(stream: BinaryIO, length: int) -> None:
    while length:
        length -= len(_read_body(stream, min(length, PIECE_BYTES)))


def _refusal(raised: RequestError) -> Response:
    """Return an error in the form of the interface."""
    error = api_error(raised)
    body = {"error": {"id": uuid.uuid4().hex, "code": int(error.code), "message": error.message}}
    return Response(json.dumps(body), error.status, error.headers, mimetype="application/json")
