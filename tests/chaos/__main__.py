"""`python -m tests.chaos`: inject real faults, and check what must hold afterwards. `make chaos` runs it.

The exit status is 0 when every check holds, 1 when one does not, 2 when the run could not start.
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
from tests.chaos.duplicates import duplicate_messages
from tests.chaos.health import health_checked
from tests.chaos.run import run_plan
from tests.chaos.scenario import prepare_scenario
from tests.chaos.summary import summary, table, write_json
from tests.chaos.system import system

SEEDS = 1_000_000


def main() -> int:
    """Run with the arguments of the command line; return the exit status."""
    arguments = _arguments()
    plan = plans.draw(arguments.seed, jobs=arguments.jobs, faults=arguments.faults)
    say(f"seed {plan.seed}: {plan.faults.total()} faults, {plan.calls.total()} calls")
    for kind, number in [*sorted(plan.faults.items()), *sorted(plan.calls.items())]:
        say(f"  {number:4} {kind}")
    try:
        with ending_on_sigterm():
            return _run(plan, arguments)
    except ServiceFailedError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="the seed of the plan; by default random, and printed")
    parser.add_argument("--jobs", type=int, default=300, help="the number of calls")
    parser.add_argument("--faults", type=int, default=60, help="the number of faults")
    parser.add_argument("--summary", type=Path, help="a file to which the summary is written as JSON")
    parser.add_argument("--keep-logs", type=Path, help="a directory to which the logs are copied at the end")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = secrets.randbelow(SEEDS)
    return arguments


def _run(plan: plans.Plan, arguments: argparse.Namespace) -> int:
    with ExitStack() as stack:
        directory = stack.enter_context(services_directory())
        running = stack.enter_context(system(directory, plan.seed))
        if arguments.keep_logs:
            stack.callback(_copy_logs, running.logs, arguments.keep_logs)
        scenario = prepare_scenario(running, plan)
        before = Engine(running.docker_host)
        duplicator = stack.enter_context(duplicate_messages(running.redis.service.url()))
        running_callers = stack.enter_context(callers(scenario))
        with health_checked(running.url) as health:
            record = run_plan(scenario, plan, running_callers)
        found = record.violations + health.violations() + violations(scenario, running_callers, before)
        report = summary(plan, scenario, record, running_callers, duplicator, health, found)
        print(table(report), flush=True)
        if arguments.summary:
            write_json(report, arguments.summary)
        return 1 if found else 0


def _copy_logs(logs: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for log in logs.iterdir():
        (target / log.name).write_bytes(log.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
