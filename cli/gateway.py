"""`longshore gateway`: run the one public address."""

import asyncio

import click

from api.gateway.server import serve
from cli.common import port_option, set_up
from shared.settings import SettingsError


@click.command("gateway")
@port_option("LONGSHORE_PORT", "Port to listen on")
def command() -> None:
    """Run the gateway: one address before API, calls and git service.

    /git/… goes to LONGSHORE_GIT_URL, /v1/algo/… and /v1/requests/… to LONGSHORE_CALLS_URL, everything else to
    LONGSHORE_API_URL. A reverse proxy that buffers requests and responses can take its place.
    """
    configured = set_up("gateway")
    try:
        asyncio.run(serve(configured))
    except OSError as error:
        raise SettingsError(
            f"LONGSHORE_HOST, LONGSHORE_PORT: cannot listen on {configured.host}:{configured.port}: {error.strerror}"
        ) from None
