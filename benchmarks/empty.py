"""Serve an empty Flask view with the same gunicorn, for comparison: `python -m benchmarks.empty PORT`."""

import sys

from flask import Flask, Response

from cli.wsgi import serve
from shared.settings import settings


def create_empty() -> Flask:
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
