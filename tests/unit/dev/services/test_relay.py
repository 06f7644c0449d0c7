"""The relay passes requests on as they are."""

import http.client
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dev.services.relay import relay
from dev.services.server_thread import serve_in_thread


class AcceptHandler(BaseHTTPRequestHandler):
    """Responds with what it was told to accept."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(", ".join(self.headers.get_all("Accept", [])).encode())


def test_a_header_that_is_sent_twice_arrives_with_both_values() -> None:
    """Docker's engine sends one Accept for each type of manifest."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), AcceptHandler)
    with serve_in_thread(server), relay(f"127.0.0.1:{server.server_port}", lambda *_request: None) as host:
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.putrequest("GET", "/")
        connection.putheader("Accept", "one")
        connection.putheader("Accept", "two")
        connection.endheaders()
        assert connection.getresponse().read() == b"one, two"
        connection.close()
