"""Check the `LONGSHORE_*` variables of the environment before they are read.

A variable that was renamed stops the start and names the new one. Any other unknown one is only warned of, since an
environment may be shared with other programs. Variables that Kubernetes sets for services (service links) are left
alone: a Service named `longshore-api` puts LONGSHORE_API_PORT=tcp://10.0.0.1:80 into every pod of its namespace.
"""

import difflib
import re
from collections.abc import Collection, Mapping

PREFIX = "LONGSHORE_"
RENAMED = {
    "LONGSHORE_GATE_NETWORKS": "LONGSHORE_GATEWAY_NETWORKS",
    "LONGSHORE_NODE_EMPTY_SECONDS": "LONGSHORE_NODE_DRAIN_TIMEOUT_SECONDS",
    "LONGSHORE_SERVING_MOST": "LONGSHORE_SERVING_MAX_INSTANCES",
    "LONGSHORE_STALLED_STILL_SECONDS": "LONGSHORE_STALLED_NO_PROGRESS_SECONDS",
}
"""Variables of earlier commits, with the names that replaced them."""
OTHERS = re.compile(r"LONGSHORE_(?:TEST|SERVICES|DEMO)_\w+")
"""Variables of the project's own tests and demo."""
_SERVICE_LINK_NAME = re.compile(
    r"LONGSHORE(?:_\w+)?_(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)
_SERVICE_LINK_PORT = re.compile(r"(?:tcp|udp|sctp)://\S+:\d+")
"""The value of `NAME_PORT`, whose name can be that of a setting (Kubernetes documentation, "Service", "Discovering
services", environment variables)."""


def is_service_link(variable: str, value: str) -> bool:
    """Return whether Kubernetes set the variable for a Service."""
    if variable.endswith("_PORT") and _SERVICE_LINK_PORT.fullmatch(value):
        return True
    return _SERVICE_LINK_NAME.fullmatch(variable) is not None


def renamed_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable of the environment that has another name now."""
    return [f"{old}: is named {new} now; rename it." for old, new in RENAMED.items() if old in environment]


def unknown_variables(environment: Mapping[str, str], known: Collection[str]) -> list[str]:
    """Return a sentence for each `LONGSHORE_*` variable that is not in `known`, with the nearest name that is."""
    sentences = []
    names = [variable.removeprefix(PREFIX) for variable in known]
    for variable, value in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in known or OTHERS.fullmatch(variable):
            continue
        if not is_service_link(variable, value):
            # Without the prefix, which all have in common.
            nearest = difflib.get_close_matches(variable.removeprefix(PREFIX), names, n=1)
            meant = f"did you mean {PREFIX}{nearest[0]}?" if nearest else "`longshore settings` lists them all."
            sentences.append(f"{variable}: no such setting; {meant}")
    return sentences
