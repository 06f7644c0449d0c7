"""`python -m dev.demo`: the demo. `python -m dev.demo stop`: stop one that `KEEP=1` left running."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from dev.demo import steps
from dev.demo.background import run_detachable
from dev.demo.caller import Caller, StepFailedError
from dev.demo.environment import PULLER, PUSHER, DemoEnvironment, demo_environment, longshore_log
from dev.demo.screen import Screen
from dev.demo.workdir import Workdir, demo_directory, locked_workdir, running_demo, stop_demo
from dev.services.processes import ServiceFailedError, ending_on_sigterm

_LOG_LINES = 15
_INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Run or stop a demo; return the exit status."""
    screen, directory = Screen(), demo_directory()
    if list(arguments) == ["stop"]:
        return _stop(screen, directory)
    if arguments:
        print("usage: python -m dev.demo [stop]", file=sys.stderr)
        return 2
    if running_demo(directory) is not None:
        screen.line(f"a demo is running in {directory}; stop it with `make demo-stop`")
        return 1
    if os.environ.get("KEEP", "0") in {"", "0"}:
        return _run(screen, directory, None)
    return run_detachable(lambda detach: _run(screen, directory, detach))


def _run(screen: Screen, directory: Path, detach: Callable[[Path], None] | None) -> int:
    try:
        with ending_on_sigterm(), locked_workdir(directory) as workdir, ExitStack() as stack:
            environment = _run_steps(screen, workdir, stack)
            _print_durations(screen)
            if detach is not None:
                _print_addresses(screen, workdir, environment)
                detach(workdir.directory / "demo.log")
    except (StepFailedError, ServiceFailedError) as failure:
        screen.line(f"failed, and everything is stopped: {str(failure).splitlines()[0]}", style="31")
        screen.line(f"the logs are in {directory}")
        return 1
    except KeyboardInterrupt:
        screen.line("interrupted; everything is stopped")
        return _INTERRUPTED
    screen.line("everything is stopped")
    return 0


def _run_steps(screen: Screen, workdir: Workdir, stack: ExitStack) -> DemoEnvironment:
    with screen.step("Start an engine, a registry, a base image and Longshore"):
        environment = stack.enter_context(demo_environment(workdir.directory, screen))
    caller = Caller(screen, workdir.directory)
    try:
        steps.introduce(caller, screen, environment)
        with screen.step("An administrator records the registry"):
            steps.record_registry(caller)
        with screen.step("An owner gets a key and creates an algorithm"):
            steps.create_algorithm(caller)
        with screen.step("The owner pushes the algorithm's source with git"):
            steps.push_source(caller, workdir.directory)
        with screen.step("The owner compiles it, with registry credentials for this push only"):
            steps.compile_and_push(caller, screen)
        with screen.step("The owner publishes it"):
            steps.publish(caller, screen)
        with screen.step("A push with a wrong password fails; the status keeps the last successful push"):
            steps.fail_to_push(caller)
        with screen.step("A second push succeeds"):
            steps.push_again(caller)
        with screen.step("The registry has that digest for both tags"):
            steps.read_registry(caller)
        with screen.step("A call pulls the image from the registry by its digest, and gets the right result"):
            steps.call_algorithm(caller, screen, environment)
    except Exception:
        log = longshore_log(workdir.directory)
        screen.line(f"the last lines of {log}:", style="31")
        screen.lines("\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:]))
        raise
    workdir.write_variables({**caller.variables, "DOCKER_HOST": environment.docker_host})
    return environment


def _print_durations(screen: Screen) -> None:
    screen.headline("Done")
    for headline, seconds in screen.steps:
        screen.line(f"{seconds:6.1f} s  {headline}")
    screen.line(f"{sum(seconds for _, seconds in screen.steps):6.1f} s  total")


def _print_addresses(screen: Screen, workdir: Workdir, environment: DemoEnvironment) -> None:
    screen.headline("The demo keeps running (KEEP=1)")
    screen.lines(
        f"Longshore: {environment.url}, interface: {environment.url}/docs, log: {longshore_log(workdir.directory)}\n"
        f"admin key: {environment.admin_key_file}\n"
        f"registry: {environment.registry.host}, users {PULLER} and {PUSHER}\n"
        f"the variables of the commands above, for your shell: . {workdir.variables_file}\n"
        "they include the engine's address (DOCKER_HOST)\n"
        "to stop everything: make demo-stop"
    )


def _stop(screen: Screen, directory: Path) -> int:
    pid = running_demo(directory)
    if pid is None:
        screen.line(f"no demo runs in {directory}")
        return 0
    with screen.waiting("stopping the demo"):
        stop_demo(pid)
    screen.line("everything is stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
