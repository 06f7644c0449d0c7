"""The peer of requests: an empty Flask view under the same gunicorn. `python -m benchmarks.empty PORT`."""

import sys

from flask import Flask, Response

from cli.wsgi import serve
from shared.settings import settings


def create_empty() -> Flask:
    """An application with one view, which does nothing."""
    app = Flask(__name__)

    @app.get("/")
    def empty() -> Response:
        return Response("[]", mimetype="application/json")

    return app


if __name__ == "__main__":
    chosen = settings()
    serve(
        chosen,
        create_empty,
        port=int(sys.argv[1]),
        processes=chosen.api_workers,
        threads=chosen.api_threads,
        preload=True,
    )
