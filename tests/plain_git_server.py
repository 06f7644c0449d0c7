"""A git server like old ones: protocol version 0, and no commit by its hash unless a branch points to it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import override
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from dev.services.server_thread import serve_in_thread


class _Quiet(WSGIRequestHandler):
    @override
    def log(self, *_args: object) -> None:
        """Log nothing."""


@contextmanager
def plain_git_server(root: Path, *, status: int | None = None, tls: bool = False) -> Iterator[str]:
    """The URL below which the bare repositories in `root` are.

    With `status`, every answer is that and nothing else. With `tls`, it speaks https with a certificate of its own.
    """

    @Request.application
    def serve(request: Request) -> Response:
        if status is not None:
            return Response("", status, headers={"Location": "http://127.0.0.1:1/elsewhere"})
        environment = {
            "CONTENT_TYPE": request.content_type or "",
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROJECT_ROOT": str(root),
            "GIT_CONFIG_NOSYSTEM": "1",
            "HOME": str(root),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string.decode(),
            "REQUEST_METHOD": request.method,
        }
        body = request.get_data()
        environment["CONTENT_LENGTH"] = str(len(body))
        answer = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True, check=True)
        head, _, content = answer.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        return Response(content, headers.pop("Status", "200 OK"), headers=headers)

    server = make_server(
        "127.0.0.1", 0, serve, threaded=True, request_handler=_Quiet, ssl_context="adhoc" if tls else None
    )
    with serve_in_thread(server):
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
