"""Inject the faults of a plan: a fault begins with its block and ends with it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

import redis
from sqlalchemy import exists, select

from dev.services.clock import wrong_clock
from dev.services.engine import engine_answers
from dev.services.processes import ServiceFailedError
from shared.db.models import Job, JobKind, JobState
from tests.chaos.attacks import attack
from tests.chaos.plan import Fault, Kind, is_proxied
from tests.chaos.scenario import Scenario
from tests.chaos.system import Process, System

BUSY_WAIT_SECONDS = 8
"""Seconds for which a fault waits until it can interrupt work."""
POLL_INTERVAL_SECONDS = 0.02
CLOCK_OFFSET_SECONDS = 300


class Skipped(Exception):  # noqa: N818 - not an error: this machine does not permit the fault
    """Raised when the fault cannot be injected here; the message has the cause."""


@dataclass
class Effect:
    """Whether a fault interrupted work; None for faults that do not wait for work."""

    interrupted_work: bool | None = None


def inject(scenario: Scenario, fault: Fault) -> AbstractContextManager[Effect]:
    """Return a context manager during which the fault lasts.

    Raises:
        Skipped: the fault cannot be injected here.
    """
    if is_proxied(fault):
        return _registry_misbehaves(scenario.system, fault)
    if fault.kind in _INJECTIONS:
        return _INJECTIONS[fault.kind](scenario.system, fault)
    return _attacked(scenario, fault)


@contextmanager
def _attacked(scenario: Scenario, fault: Fault) -> Iterator[Effect]:
    with attack(scenario.attacker, fault):
        yield Effect()


@contextmanager
def _registry_misbehaves(system: System, fault: Fault) -> Iterator[Effect]:
    """Make both proxies misbehave, until at least one request has met the fault."""
    proxies = system.proxies if fault.kind != Kind.TOKEN_EXPIRES else system.proxies[1:]

    def hits() -> int:
        return sum(proxy.hits[fault.kind] for proxy in proxies)

    before = hits()
    for proxy in proxies:
        proxy.misbehave(fault.kind)
    effect = Effect()
    try:
        yield effect
    finally:
        effect.interrupted_work = _wait_until(
            BUSY_WAIT_SECONDS, lambda: sum(proxy.hits[fault.kind] for proxy in proxies) > before
        )
        for proxy in proxies:
            proxy.behave()


def _worker(system: System, fault: Fault) -> Process:
    # Workers of pushes have most of the work, so they are chosen most often.
    names = [*system.worker_names("pushes"), *system.worker_names("pushes"), "builds", "maintenance"]
    return system.processes[names[fault.choice % len(names)]]


def _busy_worker(system: System, fault: Fault) -> tuple[Process, int | None]:
    """Return a worker of the chosen kind and its child that holds a lease, if one does within `BUSY_WAIT_SECONDS`."""
    chosen = _worker(system, fault)
    if chosen.name == "maintenance":  # it holds none
        return chosen, None
    alike = [system.processes[name] for name in system.worker_names(chosen.queue)]
    found: list[tuple[Process, int | None]] = []

    def look() -> bool:
        pids = _pids_with_leases(system)
        found.extend((process, pid) for process in alike for pid in process.child.family() if pid in pids)
        return bool(found)

    _wait_until(BUSY_WAIT_SECONDS, look)
    return found[0] if found else (chosen, None)


def _pids_with_leases(system: System) -> set[int]:
    owners = select(Job.lease_owner).where(Job.state == JobState.RUNNING, Job.lease_owner.is_not(None))
    with system.database.reading() as session:
        return {int((owner or "").rpartition("/")[2]) for owner in session.scalars(owners)}


def _wait_until(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL_SECONDS)
    return True


@contextmanager
def _child_killed(system: System, fault: Fault) -> Iterator[Effect]:
    process, busy = _busy_worker(system, fault)
    _kill_one([busy] if busy is not None else process.child.family()[:-1], fault)
    yield Effect(busy is not None)


@contextmanager
def _api_child_killed(system: System, fault: Fault) -> Iterator[Effect]:
    _kill_one(system.processes["api"].child.family()[:-1], fault)
    yield Effect()


def _kill_one(children: list[int], fault: Fault) -> None:
    if children:
        _signal(sorted(children)[fault.choice % len(children)], signal.SIGKILL)


@contextmanager
def _worker_killed(system: System, fault: Fault) -> Iterator[Effect]:
    process, busy = _busy_worker(system, fault)
    _signal(process.child.pid, signal.SIGKILL)
    process.child.wait()
    yield Effect(busy is not None)
    _restart(process)


@contextmanager
def _worker_frozen(system: System, fault: Fault) -> Iterator[Effect]:
    process, busy = _busy_worker(system, fault)
    family = process.child.family()
    for pid in reversed(family):  # the parent first, or it would replace its children
        _signal(pid, signal.SIGSTOP)
    try:
        yield Effect(busy is not None)
    finally:
        for pid in family:
            _signal(pid, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def _worker_replaced(system: System, fault: Fault) -> Iterator[Effect]:
    process, busy = _busy_worker(system, fault)
    process.switch.off()
    _restart(process)
    yield Effect(busy is not None)


@contextmanager
def _clock_off(system: System, fault: Fault) -> Iterator[Effect]:
    """Restart a worker with a wrong clock, which it keeps until another fault restarts it."""
    try:
        variables = wrong_clock(CLOCK_OFFSET_SECONDS if fault.choice % 2 else -CLOCK_OFFSET_SECONDS)
    except ServiceFailedError as error:
        raise Skipped(str(error)) from None
    process = _worker(system, fault)
    process.switch.off()
    process.variables = variables
    process.switch.on()
    process.wait()
    process.variables = {}
    yield Effect()


def _restart(process: Process) -> None:
    process.switch.off()  # the remaining children of the old one
    process.switch.on()
    process.wait()


@contextmanager
def _redis_restarted(system: System, _fault: Fault) -> Iterator[Effect]:
    system.redis.off()
    system.redis.on()
    yield Effect()


@contextmanager
def _redis_flushed(system: System, _fault: Fault) -> Iterator[Effect]:
    with redis.Redis(port=system.redis.service.port) as client:
        client.flushall()
    yield Effect()


@contextmanager
def _redis_away(system: System, _fault: Fault) -> Iterator[Effect]:
    system.redis.off()
    try:
        yield Effect()
    finally:
        system.redis.on()


@contextmanager
def _postgres_restarted(system: System, _fault: Fault) -> Iterator[Effect]:
    system.postgres.off()
    try:
        yield Effect()
    finally:
        system.postgres.on()


@contextmanager
def _registry_restarted(system: System, _fault: Fault) -> Iterator[Effect]:
    system.passwords.off()
    try:
        yield Effect()
    finally:
        system.passwords.on()


@contextmanager
def _engine_restarted(system: System, wait: Callable[[], bool]) -> Iterator[Effect]:
    if system.engine is None:
        raise Skipped("the engine belongs to the machine, so it is not restarted")
    busy = wait()
    system.engine.off()
    try:
        yield Effect(busy)
    finally:
        system.engine.on()
        assert engine_answers(system.docker_host)


def _engine_restarted_in_build(system: System, _fault: Fault) -> AbstractContextManager[Effect]:
    return _engine_restarted(system, lambda: _wait_for_build(system))


def _engine_restarted_in_push(system: System, fault: Fault) -> AbstractContextManager[Effect]:
    return _engine_restarted(system, lambda: system.proxies[fault.choice % 2].wait_for_upload(BUSY_WAIT_SECONDS))


def _wait_for_build(system: System) -> bool:
    runs = select(exists().where(Job.kind == JobKind.COMPILE, Job.state == JobState.RUNNING))

    def look() -> bool:
        with system.database.reading() as session:
            return bool(session.scalar(runs))

    return _wait_until(BUSY_WAIT_SECONDS, look)


@contextmanager
def _disk_full(system: System, _fault: Fault) -> Iterator[Effect]:
    if not system.can_fill_disk:
        raise Skipped("mounting a small disk is not permitted")
    filling = system.scratch / "filling"
    with filling.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(1024 * 1024))
            file.flush()
    try:
        yield Effect()
    finally:
        filling.unlink()


_INJECTIONS: dict[Kind, Callable[[System, Fault], AbstractContextManager[Effect]]] = {
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
