"""`python -m dev.demo`: the demo. `python -m dev.demo stop`: stop one that `KEEP=1` left running."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from dev.demo import proof, story
from dev.demo.background import returning_early
from dev.demo.caller import Caller, StepFailedError
from dev.demo.place import Place, demo_directory, end, occupied, running_demo
from dev.demo.screen import Screen
from dev.demo.stage import PULLER, PUSHER, Stage, longshore_log, set_stage
from dev.services.processes import PartFailedError, ending_on_sigterm

_LOG_LINES = 15
_INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Run or stop a demo; 0 when it went well."""
    screen, directory = Screen(), demo_directory()
    if list(arguments) == ["stop"]:
        return _stop(screen, directory)
    if arguments:
        print("usage: python -m dev.demo [stop]", file=sys.stderr)
        return 2
    if running_demo(directory) is not None:
        screen.line(f"a demo runs in {directory} already; `make demo-stop` stops it")
        return 1
    if os.environ.get("KEEP", "0") in {"", "0"}:
        return _run(screen, directory, None)
    return returning_early(lambda go_on: _run(screen, directory, go_on))


def _run(screen: Screen, directory: Path, go_on: Callable[[Path], None] | None) -> int:
    try:
        with ending_on_sigterm(), occupied(directory) as place, ExitStack() as stack:
            stage = _play(screen, place, stack)
            _sum_up(screen)
            if go_on is not None:
                _say_how_to_go_on(screen, place, stage)
                go_on(place.directory / "demo.log")
    except (StepFailedError, PartFailedError) as failure:
        screen.line(f"failed, and everything is stopped: {str(failure).splitlines()[0]}", style="31")
        screen.line(f"the logs are in {directory}")
        return 1
    except KeyboardInterrupt:
        screen.line("interrupted; everything is stopped")
        return _INTERRUPTED
    screen.line("everything is stopped")
    return 0


def _play(screen: Screen, place: Place, stack: ExitStack) -> Stage:
    with screen.step("The parts: an engine, a registry, a base image, Longshore"):
        stage = stack.enter_context(set_stage(place.directory, screen))
    caller = Caller(screen, place.directory)
    try:
        story.introduce(caller, screen, stage)
        with screen.step("An administrator records the registry"):
            story.record_registry(caller)
        with screen.step("An owner gets a key and creates an algorithm"):
            story.create_algorithm(caller)
        with screen.step("The algorithm's source is pushed with git"):
            story.push_source(caller, place.directory)
        with screen.step("It is compiled, and the image pushed with credentials for this push alone"):
            story.compile_and_push(caller, screen)
        with screen.step("It is published"):
            story.publish(caller, screen)
        with screen.step("A push with a wrong password fails; the last good one is not forgotten"):
            story.fail_to_push(caller)
        with screen.step("Pushing again mends it"):
            story.push_again(caller)
        with screen.step("The registry itself has that digest under both tags"):
            proof.ask_registry(caller)
        with screen.step("It is called: the image is pulled from there by its digest, and gives the right answer"):
            proof.call(caller, screen, stage)
    except Exception:
        log = longshore_log(place.directory)
        screen.line(f"the end of {log}:", style="31")
        screen.lines("\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:]))
        raise
    place.write_variables({**caller.variables, "DOCKER_HOST": stage.docker_host})
    return stage


def _sum_up(screen: Screen) -> None:
    screen.headline("Done")
    for headline, seconds in screen.steps:
        screen.line(f"{seconds:6.1f} s  {headline}")
    screen.line(f"{sum(seconds for _, seconds in screen.steps):6.1f} s  in all")


def _say_how_to_go_on(screen: Screen, place: Place, stage: Stage) -> None:
    screen.headline("It goes on running (KEEP=1)")
    screen.lines(
        f"Longshore: {stage.url}, its interface: {stage.url}/docs, its log: {longshore_log(place.directory)}\n"
        f"admin key: {stage.admin_key_file}\n"
        f"registry: {stage.registry.host}, users {PULLER} and {PUSHER}\n"
        f"the variables of the commands above, for your shell: . {place.variables_file}\n"
        "they name the engine too (DOCKER_HOST)\n"
        "to stop it all: make demo-stop"
    )


def _stop(screen: Screen, directory: Path) -> int:
    pid = running_demo(directory)
    if pid is None:
        screen.line(f"no demo runs in {directory}")
        return 0
    with screen.waiting("stopping the demo"):
        end(pid)
    screen.line("everything is stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
