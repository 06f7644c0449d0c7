"""`longshore calls`: run the service that calls algorithms."""

import click

from api.app import create_app
from api.invocation.async_calls import await_async_calls
from api.invocation.call_errors import call_errors
from cli.common import data_dir_option, port_option
from cli.runtime import start_service
from cli.wsgi import serve


@click.command("calls")
@port_option("LONGSHORE_CALLS_PORT", "Port to listen on")
@data_dir_option
def command() -> None:
    """Run the service that calls algorithms (/v1/algo/…, /v1/requests/…).

    It is a process of its own, so that slow algorithms do not delay other requests. Any number of these can run at
    the same time, each with LONGSHORE_CALLS_WORKERS processes of LONGSHORE_CALLS_THREADS threads. Where algorithms run
    on a Docker engine, it must run on the same machine, with the same LONGSHORE_SERVING_DIR as the worker of the queue
    serving.
    """
    configured = start_service("calls")

    def finish(timeout: float) -> None:
        await_async_calls(timeout)
        call_errors.write()

    serve(
        configured,
        create_app,
        port=configured.calls_port,
        processes=configured.calls_workers,
        threads=configured.calls_threads,
        preload=True,
        max_body_bytes=max(configured.call_max_bytes, configured.max_body_bytes),
        on_shutdown=finish,
    )
