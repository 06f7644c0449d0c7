"""Call the operator's hook that restarts a node: a command on this worker, or a URL."""

import json
import os
import shlex
import time
import uuid
from urllib.parse import urlsplit

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.net.address_rules import webhook_networks
from shared.net.connections import tls_context
from shared.net.http import HttpTransport, Timeouts
from shared.refreshes import RestartKind
from shared.settings.serving import ServingSettings
from shared.subprocesses import Subprocess, SubprocessTimeoutError, running
from shared.webhooks.deliveries import InvalidTargetError, check_target
from shared.webhooks.signing import InvalidSecretError, signature
from workers.nodes.node_pool import RestartHook

COMMAND_TIMEOUT_SECONDS = 600
"""For the command to request the restart; it need not wait for the node."""
REQUEST_TIMEOUTS = Timeouts(connect=5, read=30, total=30)
MAX_RESPONSE_BYTES = 4096
MAX_SHOWN_LINES = 5


def restart_hook(
    kind: RestartKind | None, job_id: str, settings: ServingSettings, stop: CancelToken
) -> RestartHook | None:
    """Return the function that restarts a node; None: nodes are not restarted.

    Without a `kind`, the settings decide: the command, else the URL, else none.

    Raises:
        WorkError: the setting that this kind needs is not set on this worker (invalid).
    """
    command, url = shlex.split(settings.node_restart_command), settings.node_restart_url
    if kind is None:
        kind = RestartKind.COMMAND if command else RestartKind.WEBHOOK if url else RestartKind.NONE
    if kind == RestartKind.COMMAND:
        if not command:
            raise _not_set("LONGSHORE_NODE_RESTART_COMMAND")
        return lambda node: _run([word.replace("{node}", node) for word in command], stop)
    if kind == RestartKind.WEBHOOK:
        if url is None:
            raise _not_set("LONGSHORE_NODE_RESTART_URL")
        address, secret = url.get_secret_value(), settings.node_restart_secret
        return lambda node: _post(address, secret.get_secret_value() if secret else None, node, job_id, stop)
    return None


def _not_set(variable: str) -> WorkError:
    return WorkError(
        ErrorClass.INVALID,
        f"{variable} is not set on the worker that refreshes nodes: set it there, or choose another restart.",
    )


def _run(command: list[str], stop: CancelToken) -> None:
    # Keys and passwords of the platform are in the variables that are left out.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LONGSHORE_")}
    try:
        process = Subprocess(command, environment=environment, timeout=COMMAND_TIMEOUT_SECONDS, merge_output=True)
    except OSError as error:
        raise WorkError(
            ErrorClass.INVALID,
            f"The restart command {command[0]} cannot be run: {error.strerror}; see LONGSHORE_NODE_RESTART_COMMAND.",
        ) from None
    try:
        with running(process, stop):
            status = process.wait()
        if status == 0:
            return
        failure = f"ended with status {status}"
    except SubprocessTimeoutError:
        failure = f"did not end within {COMMAND_TIMEOUT_SECONDS} s and was killed"
    lines = process.messages.splitlines()[-MAX_SHOWN_LINES:]
    output = f" Its output ends with: {' / '.join(lines)}" if lines else ""
    raise WorkError(ErrorClass.INVALID, f"The restart command {failure}.{output}")


def _post(url: str, secret: str | None, node: str, job_id: str, stop: CancelToken) -> None:
    body, now = json.dumps({"node": node, "job_id": job_id}).encode(), int(time.time())
    # The same id for every request of this job for this node, so that the receiver can recognise a repeated one.
    message_id = str(uuid.uuid5(uuid.UUID(job_id), node))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "longshore",
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
    }
    transport = HttpTransport(tls_context(), REQUEST_TIMEOUTS, stop, networks=webhook_networks())
    try:
        check_target(url)
        if secret is not None:
            headers["webhook-signature"] = signature(secret, message_id, now, body)
        response = transport.request("POST", url, headers, body, max_bytes=MAX_RESPONSE_BYTES)
    except (InvalidTargetError, InvalidSecretError) as error:
        variable = "SECRET" if isinstance(error, InvalidSecretError) else "URL"
        raise WorkError(ErrorClass.INVALID, f"LONGSHORE_NODE_RESTART_{variable}: {error}") from None
    finally:
        transport.close()
    if not 200 <= response.status < 300:
        raise WorkError(
            ErrorClass.TRANSIENT if response.status == 429 or response.status >= 500 else ErrorClass.INVALID,
            f"{urlsplit(url).hostname} responded with status {response.status} to the request to restart the node "
            f"{node}: see its log.",
        )
