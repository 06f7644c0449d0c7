"""What the clients in an algorithm take for the platform's interface: a server on the loopback address.

It takes calls of algorithms and refuses everything else. Every process of the container may use it, and none can say
for whom: the key that a client sends is not looked at.
"""

from __future__ import annotations

import secrets
import string
import uuid
from typing import TYPE_CHECKING, Mapping, cast  # noqa: UP035 - Python 3.8 cannot subscript collections.abc

from .json_handler import JsonHandler, JsonServer, json_bytes
from .messages import InvalidCallError
from .outgoing_calls import OutgoingCall, OutgoingCalls, RefusedError

if TYPE_CHECKING:
    import socket

CALL_PREFIX = "/v1/algo/"
DATA_PREFIX = "/v1/data"
MAX_TARGET_LENGTH = 4096
NO_DATA = (
    "There is no data:// here: Longshore has no data collections yet. Put files into the algorithm's repository, or "
    "read them from elsewhere over the network."
)
ONLY_CALLS = "Inside an algorithm only calls of algorithms are possible: POST /v1/algo/OWNER/NAME or …/VERSION."
NO_KEY = "This needs an API key: use Algorithmia.client() without arguments, which reads it from ALGORITHMIA_API_KEY."

INVALID_REQUEST, NOT_AUTHORIZED, BAD_KEY = 2015, 2001, 2002
"""Error codes of the interface."""


def client_environment(environment: Mapping[str, str], port: int) -> dict[str, str]:
    """Return the variables that the platform's clients read, for the algorithm's process.

    The key opens nothing elsewhere. Where the image names a proxy, it is not for the loopback address.
    """
    key = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(25))
    variables = {"ALGORITHMIA_API": f"http://127.0.0.1:{port}", "ALGORITHMIA_API_KEY": f"sim{key}"}
    if any(name.lower() in ("http_proxy", "all_proxy") for name in environment):
        for name in ("no_proxy", "NO_PROXY"):
            variables[name] = ",".join(filter(None, (environment.get(name), "127.0.0.1")))
    return variables


class OutgoingHandler(JsonHandler):
    """Handles one request of the algorithm."""

    def do_POST(self) -> None:  # noqa: N802 - the name that `http.server` looks for
        if not self.path.startswith(CALL_PREFIX):
            self._refuse_method()
        elif not self.headers.get("Authorization", "").strip():
            self._reject_body()
            self._send_error(401, BAD_KEY, NO_KEY)
        elif len(self.path) > MAX_TARGET_LENGTH:
            self._reject_body()
            self._send_error(414, INVALID_REQUEST, "The URL is too long.")
        else:
            self._make_call()

    def _make_call(self) -> None:
        try:
            body = self._read_body()
            call = OutgoingCall(self.path, self.headers.get("Content-Type", ""), body)
            response = cast("OutgoingServer", self.server).outgoing.make(call)
        except InvalidCallError as error:
            self._send_message(error.status, str(error))
        except RefusedError as error:
            self._send_error(error.status, NOT_AUTHORIZED if error.status == 403 else INVALID_REQUEST, str(error))
        else:
            headers = {"Content-Type": response.content_type}
            if response.retry_after:
                headers["Retry-After"] = response.retry_after
            self._send(response.status, response.body, headers)

    def _refuse_method(self) -> None:
        self._reject_body()
        if self.path.partition("?")[0].startswith(DATA_PREFIX):
            self._send_error(400, INVALID_REQUEST, NO_DATA)
        else:
            self._send_error(403, NOT_AUTHORIZED, ONLY_CALLS)

    def _send_message(self, status: int, message: str) -> None:
        self._send_error(status, INVALID_REQUEST, message)

    def _send_error(self, status: int, code: int, message: str) -> None:
        """Send an error in the form of the interface. Clients read the header where there is no body (HEAD)."""
        error = {"id": uuid.uuid4().hex, "code": code, "message": message}
        header = message.encode("ascii", "replace").decode("ascii")
        self._send(status, json_bytes({"error": error}), {"X-Error-Message": header})


class OutgoingServer(JsonServer):
    """The server of one container."""

    def __init__(self, listener: socket.socket, outgoing: OutgoingCalls, max_request_bytes: int) -> None:
        super().__init__(listener, OutgoingHandler, max_request_bytes)
        self.outgoing = outgoing
