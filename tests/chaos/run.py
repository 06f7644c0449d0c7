"""Run a plan: inject its faults in turn, with calls meanwhile; measure after each the time until a push succeeds."""

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import exists, select

from dev.services.processes import say
from shared.db.models import Job
from shared.db.models.jobs import LIVE_STATES
from tests.chaos.callers import Callers
from tests.chaos.faults import Effect, Skipped, inject
from tests.chaos.plan import Fault, Kind, Plan, Step
from tests.chaos.scenario import PROBE, PROBER, Scenario

RECOVERY_TIMEOUT_SECONDS = 120
SETTLE_TIMEOUT_SECONDS = 150
POLL_INTERVAL_SECONDS = 0.1
PROBE_RETRY_INTERVAL_SECONDS = 15
"""A probe that has not succeeded within this time is sent again; the newer push supersedes it."""


@dataclass
class RunRecord:
    """The events of a run."""

    injected: Counter[Kind] = field(default_factory=Counter)
    without_effect: Counter[Kind] = field(default_factory=Counter)
    """Faults that were meant to interrupt work, and found none."""
    skipped: dict[Kind, str] = field(default_factory=dict)
    recoveries: list[tuple[Kind, float]] = field(default_factory=list)
    """Each fault, with the seconds until a push succeeded after it."""
    probes: list[str] = field(default_factory=list)
    """The jobs of the pushes that measured it."""
    accepted_without_redis: int = 0
    violations: list[str] = field(default_factory=list)


def run_plan(scenario: Scenario, plan: Plan, callers: Callers) -> RunRecord:
    """Inject every fault of the plan, and wait until all accepted work has ended."""
    record = RunRecord()
    for number, step in enumerate(plan.steps, 1):
        names = " + ".join(fault.kind for fault in step.faults)
        say(f"[{number}/{len(plan.steps)}] {names}; {len(step.calls)} calls")
        _run_step(scenario, step, callers, record)
        _recover(scenario, step.fault.kind, record)
    _wait_for_ends(scenario, callers, record)
    return record


def _run_step(scenario: Scenario, step: Step, callers: Callers, record: RunRecord) -> None:
    accepted = callers.accepted
    effects: list[tuple[Kind, Effect]] = []
    with contextlib.ExitStack() as stack:
        callers.submit(step.calls)
        for fault in step.faults:
            _inject(scenario, fault, stack, record, effects)
        time.sleep(max(fault.seconds for fault in step.faults))
        if step.fault.kind == Kind.REDIS_AWAY:
            record.accepted_without_redis += callers.accepted - accepted
    record.without_effect.update(kind for kind, effect in effects if effect.interrupted_work is False)


def _inject(
    scenario: Scenario, fault: Fault, stack: contextlib.ExitStack, record: RunRecord, effects: list[tuple[Kind, Effect]]
) -> None:
    try:
        effects.append((fault.kind, stack.enter_context(inject(scenario, fault))))
    except Skipped as why:
        say(f"  skipped: {why}")
        record.skipped[fault.kind] = str(why)
    else:
        record.injected[fault.kind] += 1


def _recover(scenario: Scenario, kind: Kind, record: RunRecord) -> None:
    """Push until a push succeeds, and record how long it took."""
    began = time.monotonic()
    sent = 0
    while time.monotonic() - began < RECOVERY_TIMEOUT_SECONDS:
        sent += 1
        job_id = _send_probe(scenario, f"probe-{len(record.probes)}-{sent}-{began}")
        if job_id is not None and _succeeds(scenario, job_id):
            record.probes.append(job_id)
            record.recoveries.append((kind, time.monotonic() - began))
            say(f"  a push succeeded after {record.recoveries[-1][1]:.1f} s")
            return
    record.violations.append(f"after {kind!r} no push succeeded within {RECOVERY_TIMEOUT_SECONDS} s")


def _send_probe(scenario: Scenario, key: str) -> str | None:
    path = f"/v1/algorithms/{PROBER}/{PROBE}/versions/{scenario.probe_commit}/registry"
    body = {"registry_id": scenario.probe_row.registry_id}
    response = scenario.prober.send("POST", path, body, idempotency_key=key)
    if not response.accepted:
        time.sleep(POLL_INTERVAL_SECONDS)
    return response.job_id if response.accepted else None


def _succeeds(scenario: Scenario, job_id: str) -> bool:
    deadline = time.monotonic() + PROBE_RETRY_INTERVAL_SECONDS
    while time.monotonic() < deadline:
        response = scenario.prober.send("GET", f"/v1/jobs/{job_id}")
        if response.accepted and response.json["state"] not in ("queued", "running"):
            return bool(response.json["state"] == "succeeded")
        time.sleep(POLL_INTERVAL_SECONDS)
    return False


def _wait_for_ends(scenario: Scenario, callers: Callers, record: RunRecord) -> None:
    """Wait until every call has an outcome and all accepted work has ended."""
    say("waiting until everything has ended")
    live = select(exists().where(Job.state.in_(LIVE_STATES)))
    held = select(exists().where(Job.lease_owner.is_not(None)))
    deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        with scenario.system.database.reading() as session:
            if not callers.open and not session.scalar(live) and not session.scalar(held):
                return
        time.sleep(POLL_INTERVAL_SECONDS)
    if callers.open:
        record.violations.append(
            f"{callers.open} calls have no outcome {SETTLE_TIMEOUT_SECONDS} s after the last fault"
        )
