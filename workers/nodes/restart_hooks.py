"""The operator's hook that restarts a node: a command on this worker, or whoever answers at a URL."""

import json
import os
import shlex
import signal
import subprocess
import threading
import time
import uuid
from typing import IO
from urllib.parse import urlsplit

from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkError
from shared.net.address_rules import webhook_networks
from shared.net.http import HttpTransport, Timeouts
from shared.net.tls import tls_context
from shared.refreshes import RestartKind
from shared.settings.serving import ServingSettings
from shared.webhooks.deliveries import InvalidTargetError, check_target
from shared.webhooks.signing import InvalidSecretError, signature
from workers.nodes.fleet import Restart

COMMAND_SECONDS = 600
"""A command that has not asked for the restart by then never will."""
TIMEOUT_SECONDS = 30.0
LIMITS = Timeouts(connect=5, read=TIMEOUT_SECONDS, whole=TIMEOUT_SECONDS)
MAX_RESPONSE_BYTES = 4096
KEPT_OUTPUT = 4096
SHOWN_LINES = 5
OUR_VARIABLES = "LONGSHORE_"


def restart_hook(kind: RestartKind | None, job_id: str, settings: ServingSettings, stop: CancelToken) -> Restart | None:
    """How nodes are restarted; None: not at all. Where no way is asked for, it is the one that the settings name.

    Raises:
        WorkError: the way that is asked for is not set up on this worker (invalid).
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
    message = f"{variable} is not set on the worker that refreshes nodes: set it there, or choose another restart."
    return WorkError(ErrorClass.INVALID, message)


def _run(command: list[str], stop: CancelToken) -> None:
    # Not ours to tell it: keys and passwords of the platform stand in these.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OUR_VARIABLES)}
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group that can be killed whole
        )
    except OSError as error:
        message = (
            f"The restart command {command[0]} cannot be run: {error.strerror}; see LONGSHORE_NODE_RESTART_COMMAND."
        )
        raise WorkError(ErrorClass.INVALID, message) from None
    running = _Running(process)
    try:
        with stop.interrupting(running.kill):
            running.wait()
    finally:
        status = running.end()
    if running.timed_out:
        said = f"did not end within {COMMAND_SECONDS} s and was killed"
    elif status != 0:
        said = f"ended with status {status}"
    else:
        return
    raise WorkError(ErrorClass.INVALID, f"The restart command {said}. {running.last_words()}".rstrip())


class _Running:
    """A command in a process group of its own; whoever starts it calls `end`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.timed_out = False
        self._process = process
        self._lock = threading.Lock()
        self._reaped = False
        self._output = bytearray()
        self._reader = threading.Thread(target=self._keep, args=(process.stdout,), daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """Kill the whole group, from any thread; harmless once it has ended."""
        with self._lock:
            # Until the leader is reaped its number cannot be anybody else's.
            if not self._reaped:
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait until the command has ended, which its time limit sees to."""
        limit = threading.Timer(COMMAND_SECONDS, self._time_out)
        limit.daemon = True
        limit.start()
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        limit.cancel()

    def end(self) -> int:
        """Make sure that nothing of its group is left; its exit status."""
        self.kill()
        with self._lock:
            self._process.wait()
            self._reaped = True
        self._reader.join(1)  # what left the group may hold the pipe for ever
        return self._process.returncode

    def last_words(self) -> str:
        """The last lines of what it wrote."""
        lines = bytes(self._output).decode("utf-8", "replace").strip().splitlines()
        return "It said: " + " / ".join(lines[-SHOWN_LINES:]) if lines else ""

    def _time_out(self) -> None:
        self.timed_out = True
        self.kill()

    def _keep(self, output: IO[bytes]) -> None:
        with output:
            while chunk := os.read(output.fileno(), KEPT_OUTPUT):
                self._output += chunk
                del self._output[:-KEPT_OUTPUT]


def _post(url: str, secret: str | None, node: str, job_id: str, stop: CancelToken) -> None:
    body, now = json.dumps({"node": node, "job_id": job_id}).encode(), int(time.time())
    # The same for each time that this job asks for this node: its receiver can tell a repeat.
    message_id = str(uuid.uuid5(uuid.UUID(job_id), node))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "longshore",
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
    }
    wire = HttpTransport(tls_context(), LIMITS, stop, networks=webhook_networks())
    try:
        check_target(url)
        if secret is not None:
            headers["webhook-signature"] = signature(secret, message_id, now, body)
        answer = wire.exchange("POST", url, headers, body, most=MAX_RESPONSE_BYTES)
    except (InvalidTargetError, InvalidSecretError) as error:
        variable = "SECRET" if isinstance(error, InvalidSecretError) else "URL"
        raise WorkError(ErrorClass.INVALID, f"LONGSHORE_NODE_RESTART_{variable}: {error}") from None
    finally:
        wire.close()
    if not 200 <= answer.status < 300:
        passes = answer.status == 429 or answer.status >= 500
        host = urlsplit(url).hostname
        raise WorkError(
            ErrorClass.TRANSIENT if passes else ErrorClass.INVALID,
            f"{host} answered {answer.status} when it was asked to restart the node {node}: look at its log.",
        )
