"""Wait for a job of Longshore, and show its progress."""

import time
from typing import Any

from dev.demo.caller import Caller, HttpResponse, StepFailedError
from dev.demo.screen import Screen, Wait

_JOB_TIMEOUT_SECONDS = 900
_POLL_INTERVAL_SECONDS = 0.5
_MEGABYTE = 1_000_000


def wait_for_job(caller: Caller, screen: Screen, response: HttpResponse) -> None:
    """Wait until the job of a call and its children have ended, and show their progress.

    Raises:
        StepFailedError: one of them did not succeed; the message has the end of the build's log.
    """
    deadline = time.monotonic() + _JOB_TIMEOUT_SECONDS
    with screen.waiting("waiting for a worker") as wait:
        while True:
            job = caller.get(f"/v1/jobs/{response.headers['x-job-id']}")
            jobs = [job, *job["children"]]
            if not any(each["state"] in {"queued", "running"} for each in jobs):
                break
            if time.monotonic() > deadline:
                raise StepFailedError(f"the job {job['id']} did not end within {_JOB_TIMEOUT_SECONDS} s")
            _show_progress(caller, wait, jobs)
            time.sleep(_POLL_INTERVAL_SECONDS)
    for each in jobs:
        if each["state"] != "succeeded":
            cause = each.get("error", {}).get("message", each["state"])
            raise StepFailedError(f"the {each['kind']} did not succeed: {cause}\n{_log_lines(caller, 20)}")


def _show_progress(caller: Caller, wait: Wait, jobs: list[dict[str, Any]]) -> None:
    pushing = [job["progress"] for job in jobs if job["state"] == "running" and job.get("progress")]
    if pushing:
        done, total = (pushing[0][name] / _MEGABYTE for name in ("done_bytes", "total_bytes"))
        layers = f"{pushing[0]['layers_done']} of {pushing[0]['layers_total']} layers"
        wait.text = f"pushing: {done:.1f} of {total:.1f} MB, {layers}" if total else "pushing"
    elif line := _log_lines(caller, 1):
        wait.text = f"building: {line}"


def _log_lines(caller: Caller, count: int) -> str:
    """Return the last lines of the log of the algorithm's newest build."""
    algorithm = f"/v1/algorithms/{caller.variables['ALGO_ID']}"
    builds = caller.get(f"{algorithm}/builds?limit=1")["results"]
    if not builds:
        return ""
    log = caller.get(f"{algorithm}/builds/{builds[0]['build_id']}/logs?partial=true")["logs"]
    return "\n".join(log.strip().splitlines()[-count:])
