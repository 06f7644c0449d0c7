"""`longshore api`: run the HTTP interface."""

import click
from apiflask import APIFlask

from api.app import create_app
from cli.common import port_option
from cli.runtime import start_service
from cli.wsgi import serve


@click.command("api")
@port_option("LONGSHORE_API_PORT", "Port to listen on")
def command() -> None:
    """Run the HTTP interface (/v1, /docs, /openapi.json, /healthz, /readyz).

    Any number of these can run at the same time, each with LONGSHORE_API_WORKERS processes of
    LONGSHORE_API_THREADS threads.
    """
    configured = start_service("api")
    serve(
        configured,
        _load,
        port=configured.api_port,
        processes=configured.api_workers,
        threads=configured.api_threads,
        preload=True,
        max_body_bytes=configured.max_body_bytes,
    )


def _load() -> APIFlask:
    """Return the application with its OpenAPI document, so that no anonymous request has to generate it."""
    app = create_app()
    _ = app.spec
    return app
