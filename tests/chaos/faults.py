"""Injecting the faults of a plan: each begins, lasts, and is over when its block ends."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import redis
from sqlalchemy import exists, select

from parts.engine import engine_answers
from shared.models import Job, JobKind, JobState
from tests.chaos.plan import Fault, Kind, is_proxied
from tests.chaos.proxy import FaultyProxy
from tests.chaos.system import CLOCK_SECONDS, Process, System, clock_variables

IN_THE_MIDDLE_SECONDS = 8
"""How long an engine waits to be restarted until something runs that it is in the middle of."""
LOOK_SECONDS = 0.02


class Skipped(Exception):  # noqa: N818 - no error: this machine does not permit the fault
    """The fault cannot be injected here; the text says why."""


def inject(system: System, fault: Fault) -> AbstractContextManager[None]:
    """The fault, from the beginning of the block to its end; the block decides how long it lasts.

    Raises:
        Skipped: it cannot be had here.
    """
    if is_proxied(fault):
        return _registry_misbehaves(system, fault)
    return _INJECTIONS[fault.kind](system, fault)


@contextmanager
def _registry_misbehaves(system: System, fault: Fault) -> Iterator[None]:
    proxy = _proxy(system, fault)
    proxy.misbehave(fault.kind)
    try:
        yield
    finally:
        proxy.behave()


def _proxy(system: System, fault: Fault) -> FaultyProxy:
    with_passwords, with_tokens = system.proxies
    if fault.kind == Kind.TOKEN_EXPIRES:
        return with_tokens
    return with_tokens if fault.choice % 3 == 0 else with_passwords


def _worker(system: System, fault: Fault) -> Process:
    # Those that push have most of the work, so they are hit most often.
    names = [*system.worker_names("pushes"), *system.worker_names("pushes"), "builds", "maintenance"]
    return system.processes[names[fault.choice % len(names)]]


@contextmanager
def _child_killed(system: System, fault: Fault) -> Iterator[None]:
    _kill_one(_worker(system, fault).child.family()[:-1], fault)
    yield


@contextmanager
def _api_child_killed(system: System, fault: Fault) -> Iterator[None]:
    _kill_one(system.processes["api"].child.family()[:-1], fault)
    yield


def _kill_one(children: list[int], fault: Fault) -> None:
    if children:
        with suppress(ProcessLookupError):
            os.kill(sorted(children)[fault.choice % len(children)], signal.SIGKILL)


@contextmanager
def _worker_killed(system: System, fault: Fault) -> Iterator[None]:
    process = _worker(system, fault)
    os.kill(process.child.pid, signal.SIGKILL)
    process.child.wait()
    yield
    _start_anew(process)


@contextmanager
def _worker_frozen(system: System, fault: Fault) -> Iterator[None]:
    family = _worker(system, fault).child.family()
    for pid in reversed(family):  # the parent first, or it would replace its children
        _signal(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in family:
            _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def _worker_replaced(system: System, fault: Fault) -> Iterator[None]:
    process = _worker(system, fault)
    process.switch.off()
    _start_anew(process)
    yield


@contextmanager
def _clock_off(system: System, fault: Fault) -> Iterator[None]:
    """The worker keeps its wrong clock until something else has it started anew."""
    variables = clock_variables(CLOCK_SECONDS if fault.choice % 2 else -CLOCK_SECONDS)
    if not variables:
        raise Skipped("libfaketime is not installed")
    process = _worker(system, fault)
    process.switch.off()
    process.variables = variables
    process.switch.on()
    process.wait()
    process.variables = {}
    yield


def _start_anew(process: Process) -> None:
    process.switch.off()  # what is left of the old one
    process.switch.on()
    process.wait()


@contextmanager
def _redis_restarted(system: System, _fault: Fault) -> Iterator[None]:
    system.redis.off()
    system.redis.on()
    yield


@contextmanager
def _redis_flushed(system: System, _fault: Fault) -> Iterator[None]:
    with redis.Redis(port=system.redis.part.port) as client:
        client.flushall()
    yield


@contextmanager
def _redis_away(system: System, _fault: Fault) -> Iterator[None]:
    system.redis.off()
    try:
        yield
    finally:
        system.redis.on()


@contextmanager
def _postgres_restarted(system: System, _fault: Fault) -> Iterator[None]:
    system.postgres.off()
    try:
        yield
    finally:
        system.postgres.on()


@contextmanager
def _registry_restarted(system: System, _fault: Fault) -> Iterator[None]:
    system.passwords.off()
    try:
        yield
    finally:
        system.passwords.on()


@contextmanager
def _engine_restarted(system: System, wait: Callable[[], bool]) -> Iterator[None]:
    if system.engine is None:
        raise Skipped("the engine is not ours to restart")
    wait()
    system.engine.off()
    try:
        yield
    finally:
        system.engine.on()
        assert engine_answers(system.docker_host)


def _engine_restarted_in_build(system: System, _fault: Fault) -> AbstractContextManager[None]:
    return _engine_restarted(system, lambda: _wait_for_build(system))


def _engine_restarted_in_push(system: System, fault: Fault) -> AbstractContextManager[None]:
    return _engine_restarted(system, lambda: system.proxies[fault.choice % 2].wait_for_upload(IN_THE_MIDDLE_SECONDS))


def _wait_for_build(system: System) -> bool:
    runs = select(exists().where(Job.kind == JobKind.COMPILE, Job.state == JobState.RUNNING))
    deadline = time.monotonic() + IN_THE_MIDDLE_SECONDS
    while time.monotonic() < deadline:
        with system.database.reading() as session:
            if session.scalar(runs):
                return True
        time.sleep(LOOK_SECONDS)
    return False


@contextmanager
def _disk_full(system: System, _fault: Fault) -> Iterator[None]:
    if not system.can_fill_disk:
        raise Skipped("mounting a small disk is not permitted")
    filling = system.scratch / "filling"
    with filling.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(1024 * 1024))
            file.flush()
    try:
        yield
    finally:
        filling.unlink()


_INJECTIONS: dict[Kind, Callable[[System, Fault], AbstractContextManager[None]]] = {
    Kind.CHILD_KILLED: _child_killed,
    Kind.WORKER_KILLED: _worker_killed,
    Kind.WORKER_FROZEN: _worker_frozen,
    Kind.WORKER_REPLACED: _worker_replaced,
    Kind.API_CHILD_KILLED: _api_child_killed,
    Kind.CLOCK_OFF: _clock_off,
    Kind.REDIS_RESTARTED: _redis_restarted,
    Kind.REDIS_FLUSHED: _redis_flushed,
    Kind.REDIS_AWAY: _redis_away,
    Kind.POSTGRES_RESTARTED: _postgres_restarted,
    Kind.ENGINE_RESTARTED_IN_BUILD: _engine_restarted_in_build,
    Kind.ENGINE_RESTARTED_IN_PUSH: _engine_restarted_in_push,
    Kind.DISK_FULL: _disk_full,
    Kind.REGISTRY_RESTARTED: _registry_restarted,
}
