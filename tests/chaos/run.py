"""One run: the plan's faults one after the other, calls meanwhile, and after each the time until a push goes well."""

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import exists, select

from dev.services.processes import say
from shared.db.models import Job
from shared.db.models.jobs import LIVE_STATES
from tests.chaos.callers import Callers
from tests.chaos.faults import Caught, Skipped, inject
from tests.chaos.plan import Fault, Kind, Plan, Step
from tests.chaos.stage import PROBE, PROBER, Stage

RECOVERY_SECONDS = 120
SETTLING_SECONDS = 150
POLL_INTERVAL_SECONDS = 0.1
PROBE_RETRY_INTERVAL_SECONDS = 15
"""A probe that has not gone well for so long is sent afresh: a newer push takes its place."""


@dataclass
class SentSoFar:
    """What happened."""

    injected: Counter[Kind] = field(default_factory=Counter)
    in_vain: Counter[Kind] = field(default_factory=Counter)
    """Faults that were to catch something in the middle, and caught nothing."""
    skipped: dict[Kind, str] = field(default_factory=dict)
    recoveries: list[tuple[Kind, float]] = field(default_factory=list)
    """After which fault how many seconds passed until a push went well."""
    probes: list[str] = field(default_factory=list)
    """The jobs of the pushes that measured it."""
    accepted_without_redis: int = 0
    complaints: list[str] = field(default_factory=list)


def carry_out(stage: Stage, plan: Plan, callers: Callers) -> SentSoFar:
    """Inject every fault of the plan, and wait until all that was accepted has ended."""
    told = SentSoFar()
    for number, step in enumerate(plan.steps, 1):
        names = " + ".join(fault.kind for fault in step.faults)
        say(f"[{number}/{len(plan.steps)}] {names}; {len(step.calls)} calls")
        _take_step(stage, step, callers, told)
        _recover(stage, step.fault.kind, told)
    _resolve(stage, callers, told)
    return told


def _take_step(stage: Stage, step: Step, callers: Callers, told: SentSoFar) -> None:
    accepted = callers.accepted
    caught: list[tuple[Kind, Caught]] = []
    with contextlib.ExitStack() as stack:
        callers.give(step.calls)
        for fault in step.faults:
            _inject(stage, fault, stack, told, caught)
        time.sleep(max(fault.seconds for fault in step.faults))
        if step.fault.kind == Kind.REDIS_AWAY:
            told.accepted_without_redis += callers.accepted - accepted
    told.in_vain.update(kind for kind, what in caught if what.something is False)


def _inject(
    stage: Stage, fault: Fault, stack: contextlib.ExitStack, told: SentSoFar, caught: list[tuple[Kind, Caught]]
) -> None:
    try:
        caught.append((fault.kind, stack.enter_context(inject(stage.system, fault))))
    except Skipped as why:
        say(f"  skipped: {why}")
        told.skipped[fault.kind] = str(why)
    else:
        told.injected[fault.kind] += 1


def _recover(stage: Stage, kind: Kind, told: SentSoFar) -> None:
    """Push until a push goes well; how long that took is the time to recover."""
    began = time.monotonic()
    sent = 0
    while time.monotonic() - began < RECOVERY_SECONDS:
        sent += 1
        job_id = _send_probe(stage, f"probe-{len(told.probes)}-{sent}-{began}")
        if job_id is not None and _goes_well(stage, job_id):
            told.probes.append(job_id)
            told.recoveries.append((kind, time.monotonic() - began))
            say(f"  a push went well after {told.recoveries[-1][1]:.1f} s")
            return
    told.complaints.append(f"after {kind!r} no push went well within {RECOVERY_SECONDS} s")


def _send_probe(stage: Stage, key: str) -> str | None:
    path = f"/v1/algorithms/{PROBER}/{PROBE}/versions/{stage.probe_commit}/registry"
    body = {"registry_id": stage.probe_row.registry_id}
    answer = stage.prober.send("POST", path, body, idempotency_key=key)
    if not answer.accepted:
        time.sleep(POLL_INTERVAL_SECONDS)
    return answer.job_id if answer.accepted else None


def _goes_well(stage: Stage, job_id: str) -> bool:
    deadline = time.monotonic() + PROBE_RETRY_INTERVAL_SECONDS
    while time.monotonic() < deadline:
        answer = stage.prober.send("GET", f"/v1/jobs/{job_id}")
        if answer.accepted and answer.json["state"] not in ("queued", "running"):
            return bool(answer.json["state"] == "succeeded")
        time.sleep(POLL_INTERVAL_SECONDS)
    return False


def _resolve(stage: Stage, callers: Callers, told: SentSoFar) -> None:
    """Wait until every call has its answer, and everything that was accepted its end."""
    say("waiting until everything has ended")
    live = select(exists().where(Job.state.in_(LIVE_STATES)))
    held = select(exists().where(Job.lease_owner.is_not(None)))
    deadline = time.monotonic() + SETTLING_SECONDS
    while time.monotonic() < deadline:
        with stage.system.database.reading() as session:
            if not callers.open and not session.scalar(live) and not session.scalar(held):
                return
        time.sleep(POLL_INTERVAL_SECONDS)
    if callers.open:
        told.complaints.append(f"{callers.open} calls have no outcome {SETTLING_SECONDS} s after the last fault")
