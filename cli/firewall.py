"""`longshore firewall`: write the firewall rules of Longshore's Docker networks, for workers that cannot."""

import signal

import click
import structlog

from cli.common import set_up
from shared.errors import WorkError
from workers.docker.network import BRIDGES, create_network, write_rules

log = structlog.get_logger(__name__)

WRITE_INTERVAL_SECONDS = 30.0


@click.command("firewall")
def command() -> None:
    """Create the Docker networks of builds and algorithms, and keep their firewall rules in force.

    Runs on the machine of the Docker engine, in its network, with CAP_NET_ADMIN. Needed only where the workers cannot
    write the rules themselves, as in containers of their own; set LONGSHORE_EGRESS_RULES=elsewhere for those.
    """
    set_up("firewall")
    signals = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # they are waited for below
    reported: str | None = None
    while True:
        problem = _problem()
        if problem != reported:
            if problem:
                log.warning("firewall_rules_not_in_force", problem=problem)
            else:
                log.info("firewall_rules_in_force", networks=list(BRIDGES))
            reported = problem
        if signal.sigtimedwait(signals, WRITE_INTERVAL_SECONDS) is not None:
            return


def _problem() -> str:
    """Write the rules; return why that was impossible, as sentences, or an empty text."""
    try:
        for name in BRIDGES:
            create_network(name)
            if problem := write_rules(name):
                return f"{name}: {problem}"
    except WorkError as error:
        return error.message
    return ""
