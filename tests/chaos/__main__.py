"""`python -m tests.chaos`: faults injected for real, and what must hold afterwards. `make chaos` runs it.

Ends with status 0 when everything holds, 1 when something does not, 2 when it could not be tried.
"""

import argparse
import secrets
import sys
from contextlib import ExitStack
from pathlib import Path

from dev.services.processes import ServiceFailedError, ending_on_sigterm, say
from dev.services.workdir import services_directory
from tests.chaos import plan as plans
from tests.chaos.callers import callers
from tests.chaos.checks import Engine, violations
from tests.chaos.duplicates import everything_twice
from tests.chaos.run import carry_out
from tests.chaos.stage import set_stage
from tests.chaos.summary import summary, table, write_json
from tests.chaos.system import system

SEEDS = 1_000_000


def main() -> int:
    """Read the command line, run, and say how it was."""
    asked = _arguments()
    plan = plans.draw(asked.seed, jobs=asked.jobs, faults=asked.faults)
    say(f"seed {plan.seed}: {plan.faults.total()} faults, {plan.calls.total()} calls")
    for kind, number in [*sorted(plan.faults.items()), *sorted(plan.calls.items())]:
        say(f"  {number:4} {kind}")
    try:
        with ending_on_sigterm():
            return _run(plan, asked)
    except ServiceFailedError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="what the plan is drawn from; random, and printed")
    parser.add_argument("--jobs", type=int, default=300, help="how many calls")
    parser.add_argument("--faults", type=int, default=60, help="how many faults")
    parser.add_argument("--summary", type=Path, help="a file for the summary, as JSON")
    parser.add_argument("--keep-logs", type=Path, help="a directory to which the logs are copied at the end")
    asked = parser.parse_args()
    if asked.seed is None:
        asked.seed = secrets.randbelow(SEEDS)
    return asked


def _run(plan: plans.Plan, asked: argparse.Namespace) -> int:
    with ExitStack() as stack:
        directory = stack.enter_context(services_directory())
        running = stack.enter_context(system(directory, plan.seed))
        if asked.keep_logs:
            stack.callback(_copy_logs, running.logs, asked.keep_logs)
        stage = set_stage(running, plan)
        before = Engine(running.docker_host)
        duplicator = stack.enter_context(everything_twice(running.redis.service.url()))
        working = stack.enter_context(callers(stage))
        told = carry_out(stage, plan, working)
        found = told.complaints + violations(stage, working, before)
        told_all = summary(plan, stage, told, working, duplicator, found)
        print(table(told_all), flush=True)
        if asked.summary:
            write_json(told_all, asked.summary)
        return 1 if found else 0


def _copy_logs(logs: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for log in logs.iterdir():
        (target / log.name).write_bytes(log.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
