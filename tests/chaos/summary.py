"""Summarise a run as a table for people and as JSON for comparisons."""

import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from shared.db.models import Job, PushEvent
from tests.chaos.callers import Callers
from tests.chaos.duplicates import Duplicator
from tests.chaos.health import Health
from tests.chaos.plan import Plan
from tests.chaos.run import RunRecord
from tests.chaos.scenario import Scenario


def summary(
    plan: Plan,
    scenario: Scenario,
    record: RunRecord,
    callers: Callers,
    duplicator: Duplicator,
    health: Health,
    violations: list[str],
) -> dict[str, Any]:
    """Return the summary of a run."""
    seconds = [seconds for _, seconds in record.recoveries]
    with scenario.system.database.reading() as session:
        ends = session.execute(select(Job.kind, Job.state, func.count()).group_by(Job.kind, Job.state)).all()
        classes = session.execute(
            select(Job.error_class, func.count()).where(Job.state == "failed").group_by(Job.error_class)
        ).all()
        losses = session.scalar(select(func.coalesce(func.sum(Job.losses), 0)))
        retries = session.scalar(select(func.count()).where(PushEvent.kind == "retry"))
    hits = Counter[str]()
    for proxy in scenario.system.proxies:
        hits.update({kind.value: number for kind, number in proxy.hits.items()})
    return {
        "seed": plan.seed,
        "faults": {kind.value: number for kind, number in sorted(record.injected.items())},
        "faults_injected": record.injected.total(),
        "faults_that_caught_nothing": {kind.value: number for kind, number in sorted(record.without_effect.items())},
        "faults_skipped": {kind.value: why for kind, why in record.skipped.items()},
        "whole_run": {"beats": 2, "messages_delivered_again": duplicator.copied},
        "requests_met_by_the_proxies": dict(sorted(hits.items())),
        "healthz": health.summary(),
        "hostile_calls": dict(sorted(scenario.attacker.outcomes.items())),
        "calls": len(callers.outcomes),
        "accepted": callers.accepted,
        "accepted_while_redis_was_away": record.accepted_without_redis,
        "sent": sum(outcome.sent for outcome in callers.outcomes),
        "answers_that_were_no_acceptance": dict(callers.errors),
        "jobs": sum(number for _, _, number in ends),
        "ended": {f"{kind} {state}": number for kind, state, number in sorted(ends)},
        "failed_by_class": {str(error_class): number for error_class, number in classes},
        "retries": retries,
        "take_overs": losses,
        "recovery_seconds": {
            "median": round(statistics.median(seconds), 1) if seconds else None,
            "maximum": round(max(seconds), 1) if seconds else None,
            "slowest": [[kind.value, round(took, 1)] for kind, took in sorted(record.recoveries, key=_slowest)[:5]],
        },
        "violations": violations,
    }


def write_json(report: dict[str, Any], path: Path) -> None:
    """Write a summary to a file as JSON."""
    path.write_text(json.dumps(report, indent=2) + "\n")


def table(report: dict[str, Any]) -> str:
    """Return the summary as a table."""
    lines: list[str] = []
    for name, value in report.items():
        title = name.replace("_", " ")
        if isinstance(value, dict):
            lines.append(title)
            lines += [f"  {part:<45} {_text(number)}" for part, number in value.items()]
        elif isinstance(value, list):
            lines.append(f"{title:<47} {len(value) or 'none'}")
            lines += [f"  {entry}" for entry in value]
        else:
            lines.append(f"{title:<47} {value}")
    return "\n".join(lines)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(f"{name} {seconds}" for name, seconds in value)
    return str(value)


def _slowest(recovery: tuple[Any, float]) -> float:
    return -recovery[1]
