"""Attacks of a hostile owner: slow and broken clients, and builds and calls that use all resources."""

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field

from tests.chaos.api import Api
from tests.chaos.plan import HOSTILE_BUILDS, Fault, Kind
from tests.security.git_client import broken_chunked_push, broken_push, slow_fetch, slow_push
from tests.security.slow_network import (
    address_of,
    broken_body,
    connect,
    request_head,
    send_and_leave,
    slow_body,
    slow_chunks,
    slow_headers,
    slow_network,
    slow_reader,
)
from tests.security.sources import Tree, algorithm, fills_disk, floods_output, forks, runs_in_build

OWNER, ALGORITHM = "hostile", "Hostile"
SLOW_BODIES, SLOW_PUSHES = 64, 48
BROKEN_PUSHES = 12
LEAVERS = 32
CALLERS = 2
DRIP_SECONDS = 2.0
CALL_TIMEOUT_SECONDS = 10
OUTCOME_CHARACTERS = 100
FILLED_MEGABYTES = 2048
FLOOD_MEGABYTES = 256
FORKS = 5000
HOLD_SECONDS = 5
CALLABLE = "callable"
_CALLED = f"""\
import os, time
if given == "exit":
    os._exit(3)
if given == "hang":
    time.sleep({2 * CALL_TIMEOUT_SECONDS})
if given == "large":
    return "x" * (80 << 20)
if given == "fork":
    {{forks}}
if given == "fill":
    {{fills}}
if given == "flood":
    {{floods}}
return given
"""
CALLS = ("nothing", "large", "flood", "fill", "fork", "exit", "nothing", "hang")
"""Inputs of the calls of each caller, in this order: an algorithm that has ended or hangs does nothing else."""


@dataclass(frozen=True)
class Attacker:
    """The key of the hostile owner, and the commits of the algorithm by what their builds do."""

    api: Api
    commits: dict[str, str]
    """A kind of `HOSTILE_BUILDS`, or `CALLABLE`, whose image does what the input of a call says."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Results of the hostile calls."""


def trees() -> dict[str, Tree]:
    """Return the source of each commit."""
    held = forks(FORKS) + f"import time\ntime.sleep({HOLD_SECONDS})\nraise SystemExit(1)\n"
    called = _CALLED.format(
        forks=_as_block(forks(FORKS)), fills=_as_block(fills_disk("/tmp/filled")), floods=_as_block(floods_output(64))
    )
    return {
        CALLABLE: algorithm(called, name=ALGORITHM),
        Kind.BUILD_FILLS_DISK: runs_in_build(fills_disk("filled", megabytes=FILLED_MEGABYTES), name=ALGORITHM),
        Kind.BUILD_FORKS: runs_in_build(held, name=ALGORITHM),
        Kind.BUILD_FLOODS: runs_in_build(floods_output(FLOOD_MEGABYTES), name=ALGORITHM),
    }


def attack(attacker: Attacker, fault: Fault) -> AbstractContextManager[None]:
    """Return a context manager during which the attack lasts."""
    if fault.kind in HOSTILE_BUILDS:
        return _hostile_build(attacker, fault)
    return ATTACKS[fault.kind](attacker)


def _as_block(code: str) -> str:
    """Return code as the block of an `if`."""
    return code.strip().replace("\n", "\n    ")


@contextmanager
def _slow_clients(attacker: Attacker) -> Iterator[None]:
    url, key, path = attacker.api.url, attacker.api.key, f"{OWNER}/{ALGORITHM}"
    bodies = [
        make(url, f"/v1/algorithms/{OWNER}", key=key, interval=DRIP_SECONDS)
        for _ in range(SLOW_BODIES // 2)
        for make in (slow_body, slow_chunks)
    ]
    pushes = [
        make(url, path, key, interval=DRIP_SECONDS) for _ in range(SLOW_PUSHES // 2) for make in (slow_push, slow_fetch)
    ]
    headers = [slow_headers(url, interval=DRIP_SECONDS) for _ in range(SLOW_BODIES // 4)]
    readers = [slow_reader(url, "/openapi.json", key=key) for _ in range(SLOW_BODIES // 4)]
    with slow_network(url, [*bodies, *pushes, *headers, *readers], persistent=True):
        yield


@contextmanager
def _broken_pushes(attacker: Attacker) -> Iterator[None]:
    for number in range(BROKEN_PUSHES):
        push = (broken_push, broken_chunked_push)[number % 2]
        push(attacker.api.url, f"{OWNER}/{ALGORITHM}", attacker.api.key, reset=number % 4 > 1)
    yield


@contextmanager
def _callers_leave(attacker: Attacker) -> Iterator[None]:
    url, key = attacker.api.url, attacker.api.key
    for number in range(LEAVERS):
        broken_body(url, f"/v1/algorithms/{OWNER}", key=key)
        read = request_head("GET", url, f"/v1/algorithms/{OWNER}/{ALGORITHM}/versions", key=key)
        send_and_leave(url, read, reset=number % 2 == 0)
    connected = [connect(url) for _ in range(LEAVERS)]
    yield
    for left in connected:
        left.close()


@contextmanager
def _hostile_build(attacker: Attacker, fault: Fault) -> Iterator[None]:
    path = f"/v1/algorithms/{OWNER}/{ALGORITHM}/compile?force=true"
    attacker.api.send("POST", path, {"commitSha": attacker.commits[fault.kind]})
    yield


@contextmanager
def _hostile_calls(attacker: Attacker) -> Iterator[None]:
    callers = [threading.Thread(target=_call_all, args=(attacker,), daemon=True) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    yield
    for caller in callers:
        caller.join()


def _call_all(attacker: Attacker) -> None:
    for given in CALLS:
        _call(attacker, given)


def _call(attacker: Attacker, given: str) -> None:
    """Call the algorithm, and leave it after `CALL_TIMEOUT_SECONDS` at most."""
    path = f"/v1/algo/{OWNER}/{ALGORITHM}/{attacker.commits[CALLABLE]}"
    headers = {"Authorization": f"Simple {attacker.api.key}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(*address_of(attacker.api.url), timeout=CALL_TIMEOUT_SECONDS)
    outcome = "no answer"
    with suppress(OSError, http.client.HTTPException, ValueError):
        connection.request("POST", path, json.dumps(given), headers)
        response = connection.getresponse()
        outcome = str(response.status)
        error = json.loads(response.read()).get("error")
        outcome = "result" if error is None else f"error, {error['message'].splitlines()[0]}"[:OUTCOME_CHARACTERS]
    connection.close()
    attacker.outcomes[f"{given}: {outcome}"] += 1


ATTACKS: dict[Kind, Callable[[Attacker], AbstractContextManager[None]]] = {
    Kind.SLOW_CLIENTS: _slow_clients,
    Kind.BROKEN_PUSHES: _broken_pushes,
    Kind.CALLERS_LEAVE: _callers_leave,
    Kind.HOSTILE_CALLS: _hostile_calls,
}
