"""The HTTP server of the runner: `POST /` calls the algorithm, `GET /healthz` returns whether it has loaded."""

from __future__ import annotations

import select
import threading
import time
import traceback
from typing import TYPE_CHECKING, cast

from .algorithm import AlgorithmRunner, StoppingError
from .json_handler import JsonHandler, JsonServer, json_bytes
from .messages import InvalidCallError, parse_query, request_line
from .outgoing_calls import CallChannel, OutgoingCalls

if TYPE_CHECKING:
    import socket

BACKLOG = 128


class CallCounter:
    """Counts the calls whose responses are still to be written, and the seconds since the last one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._connecting = 0
        self._idle_since = time.monotonic()

    def __enter__(self) -> None:
        with self._changed:
            self._running += 1

    def __exit__(self, *_exception: object) -> None:
        with self._changed:
            self._running -= 1
            self._idle_since = time.monotonic()
            self._changed.notify_all()

    def connection_accepted(self) -> None:
        with self._changed:
            self._connecting += 1

    def first_request_read(self) -> None:
        """Count it no longer: its first request was read, or the connection was closed without one."""
        with self._changed:
            self._connecting -= 1
            self._changed.notify_all()

    def status(self) -> dict[str, int | float]:
        """Return the number of calls in progress, waiting ones included, and the seconds since there was one."""
        with self._changed:
            idle = 0.0 if self._running else time.monotonic() - self._idle_since
            return {"calls": self._running, "idle_seconds": round(idle, 3)}

    def wait_for_first_requests(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._connecting == 0, seconds)

    def wait_for_calls(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0, seconds)


class RequestHandler(JsonHandler):
    """Handles `POST /` and `GET /healthz`; every other request gets an error.

    `_first_request_pending`: the server, to stop, still waits for this connection's first request. `_channel`: the
    call's caller may still send responses to outgoing calls.
    """

    _first_request_pending = True
    _channel: CallChannel | None = None

    def do_POST(self) -> None:  # noqa: N802 - the name that `http.server` looks for
        with self._server.calls:
            self._first_request_read()
            try:
                body = self._read_body()
                path, _, query = self.path.partition("?")
                if path != "/":
                    raise InvalidCallError(404, f"There is nothing at {path}; POST to / calls the algorithm.")
                parameters = parse_query(query)
                line = request_line(self.headers.get("Content-Type"), body)
                channel = CallChannel(self._server.outgoing, self.connection, self.rfile, parameters)
                response = self._server.algorithm.call(line, parameters.timeout, channel)
                if channel.was_used:
                    self._channel, self.close_connection = channel, True
                self._send(200, response.encode(with_stdout=parameters.stdout))
            except InvalidCallError as error:
                self._send_message(error.status, str(error))
            except StoppingError:
                self.close_connection = True
                self._send_message(503, "This instance of the algorithm is stopping; send the call again.")
            except OSError:
                raise  # the client has closed the connection
            except Exception:  # noqa: BLE001 - the client gets a response after any error
                traceback.print_exc()
                self._send_message(500, "The runner failed; the container's log has the cause.")
            self.wfile.flush()

    def do_GET(self) -> None:  # noqa: N802 - as above
        self._first_request_read()
        self._reject_body()
        if self.path.partition("?")[0] != "/healthz":
            self._send_message(404, "There is nothing here; GET /healthz returns whether the algorithm has loaded.")
            return
        algorithm, calls = self._server.algorithm, self._server.calls.status()
        if not algorithm.ready:
            self._send(503, json_bytes({"status": "loading", **calls}))
            return
        failure = algorithm.load_failure()
        problem = {"load_error": failure.message} if failure else {}
        self._send(200, json_bytes({"status": "ready", **calls, **problem}))

    def _refuse_method(self) -> None:
        self._send_message(405, "POST to / calls the algorithm; GET /healthz returns whether it has loaded.")

    def finish(self) -> None:
        """Close the connection. What comes on a channel is read to its end: unread bytes would reset the response."""
        self._first_request_read()
        if self._channel is not None:
            self._channel.close()
        super().finish()

    @property
    def _server(self) -> RunnerServer:
        return cast("RunnerServer", self.server)

    def _first_request_read(self) -> None:
        if self._first_request_pending:
            self._first_request_pending = False
            self._server.calls.first_request_read()


class RunnerServer(JsonServer):
    """Serves calls on one listening socket."""

    def __init__(
        self,
        listener: socket.socket,
        algorithm: AlgorithmRunner,
        calls: CallCounter,
        outgoing: OutgoingCalls,
        max_request_bytes: int,
    ) -> None:
        super().__init__(listener, RequestHandler, max_request_bytes)
        self.algorithm = algorithm
        self.calls = calls
        self.outgoing = outgoing

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        self.calls.connection_accepted()
        super().process_request(request, client_address)

    def accept_pending(self) -> None:
        """Accept the connections of the backlog: closing the listener would reset them."""
        for _ in range(BACKLOG):
            if not select.select([self.socket], [], [], 0)[0]:
                return
            self.handle_request()
