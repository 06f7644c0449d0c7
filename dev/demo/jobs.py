"""Waiting for a job of Longshore, and saying how far it is."""

import time
from typing import Any

from dev.demo.caller import Answer, Caller, StepFailedError
from dev.demo.screen import Screen, Wait

_MAX_SECONDS = 900
_POLL_SECONDS = 0.5
_MEGABYTE = 1_000_000


def wait_for_job(caller: Caller, screen: Screen, answer: Answer) -> None:
    """Wait until the job of a call and its parts have ended, with what they do as progress.

    Raises:
        StepFailedError: one of them did not succeed; carries the end of the build's log.
    """
    deadline = time.monotonic() + _MAX_SECONDS
    with screen.waiting("waiting for a worker") as wait:
        while True:
            job = caller.ask(f"/v1/jobs/{answer.headers['x-job-id']}")
            parts = [job, *job["children"]]
            if not any(part["state"] in {"queued", "running"} for part in parts):
                break
            if time.monotonic() > deadline:
                raise StepFailedError(f"the job {job['id']} did not end within {_MAX_SECONDS} s")
            _describe(caller, wait, parts)
            time.sleep(_POLL_SECONDS)
    for part in parts:
        if part["state"] != "succeeded":
            why = part.get("error", {}).get("message", part["state"])
            raise StepFailedError(f"the {part['kind']} did not succeed: {why}\n{_log_lines(caller, 20)}")


def _describe(caller: Caller, wait: Wait, parts: list[dict[str, Any]]) -> None:
    pushing = [part["progress"] for part in parts if part["state"] == "running" and part.get("progress")]
    if pushing:
        done, total = (pushing[0][name] / _MEGABYTE for name in ("done_bytes", "total_bytes"))
        layers = f"{pushing[0]['layers_done']} of {pushing[0]['layers_total']} layers"
        wait.text = f"pushing: {done:.1f} of {total:.1f} MB, {layers}" if total else "pushing"
    elif line := _log_lines(caller, 1):
        wait.text = f"building: {line}"


def _log_lines(caller: Caller, count: int) -> str:
    """The last lines of the log of the algorithm's newest build."""
    algorithm = f"/v1/algorithms/{caller.variables['ALGO_ID']}"
    builds = caller.ask(f"{algorithm}/builds?limit=1")["results"]
    if not builds:
        return ""
    log = caller.ask(f"{algorithm}/builds/{builds[0]['build_id']}/logs?partial=true")["logs"]
    return "\n".join(log.strip().splitlines()[-count:])
