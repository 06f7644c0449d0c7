"""What a run does, drawn from its seed: which faults in which order, and which calls while they last."""

import random
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

LEASE_SECONDS = 6


class Kind(StrEnum):
    """A fault."""

    CHILD_KILLED = "kill -9 of a worker's child"
    WORKER_KILLED = "kill -9 of a worker"
    WORKER_FROZEN = "worker stopped for longer than its lease"
    WORKER_REPLACED = "SIGTERM of a worker, and a new one"
    API_CHILD_KILLED = "kill -9 of an API process"
    CLOCK_OFF = "worker with a clock five minutes off"
    REDIS_RESTARTED = "Redis restarted"
    REDIS_FLUSHED = "Redis flushed"
    REDIS_AWAY = "Redis away while callers submit"
    POSTGRES_RESTARTED = "PostgreSQL restarted"
    ENGINE_RESTARTED_IN_BUILD = "engine restarted in mid-build"
    ENGINE_RESTARTED_IN_PUSH = "engine restarted in mid-push"
    DISK_FULL = "disk full in the work directory"
    REGISTRY_RESTARTED = "registry restarted"
    REGISTRY_DELAYS = "registry delays"
    REGISTRY_THROTTLES = "registry takes bytes slowly"
    REGISTRY_CUTS = "registry cuts in mid-body"
    REGISTRY_401 = "registry answers 401"
    REGISTRY_403 = "registry answers 403"
    REGISTRY_404 = "registry answers 404"
    REGISTRY_413 = "registry answers 413"
    REGISTRY_429 = "registry answers 429"
    REGISTRY_500 = "registry answers 500"
    REGISTRY_502 = "registry answers 502"
    REGISTRY_503 = "registry answers 503"
    REGISTRY_LIES = "registry lies about a manifest"
    TOKEN_EXPIRES = "token expires in mid-push"


class CallKind(StrEnum):
    """What a caller asks for."""

    PUSH = "push"
    PUSH_WITH_OWN = "push with credentials of its own"
    PUSH_WITH_WRONG = "push with a wrong password"
    PUSH_AND_CANCEL = "push, then cancel it"
    COMPILE = "compile and push a new commit"
    REBUILD = "compile a commit again and push it"
    PUBLISH = "publish and push"


_SECONDS = {
    Kind.WORKER_FROZEN: (LEASE_SECONDS + 1, LEASE_SECONDS + 3),
    Kind.REDIS_AWAY: (4, 6),
    Kind.DISK_FULL: (3, 5),
    Kind.REGISTRY_THROTTLES: (4, 8),
    Kind.REGISTRY_429: (2, 4),
    Kind.POSTGRES_RESTARTED: (0.2, 2),
}
_USUAL_SECONDS = (1.5, 4)
_NEEDS_A_BUILD = (Kind.ENGINE_RESTARTED_IN_BUILD, Kind.DISK_FULL)
LONG_AWAY_SECONDS = 60
_LONG_PLAN = len(Kind)
"""A plan with at least so many faults has every kind, and the minute without Redis."""

QUICK = (
    Kind.CHILD_KILLED,
    Kind.WORKER_KILLED,
    Kind.WORKER_REPLACED,
    Kind.REDIS_RESTARTED,
    Kind.REDIS_FLUSHED,
    Kind.REDIS_AWAY,
    Kind.POSTGRES_RESTARTED,
    Kind.ENGINE_RESTARTED_IN_PUSH,
    Kind.REGISTRY_CUTS,
    Kind.REGISTRY_503,
    Kind.REGISTRY_LIES,
)
"""What a plan with few faults chooses from; its registries have passwords only."""

_SHARES = {
    CallKind.PUSH: 60,
    CallKind.PUSH_WITH_OWN: 14,
    CallKind.PUSH_WITH_WRONG: 8,
    CallKind.PUSH_AND_CANCEL: 9,
    CallKind.COMPILE: 4,
    CallKind.REBUILD: 1,
    CallKind.PUBLISH: 4,
}


@dataclass(frozen=True)
class Fault:
    """One fault: what, for how many seconds, and a number that chooses its victim."""

    kind: Kind
    seconds: float
    choice: int


@dataclass(frozen=True)
class Call:
    """One request that a caller sends until it is accepted."""

    number: int
    kind: CallKind
    commit: int
    """An index into the commits of the run; what is compiled or published has one of its own."""
    registry: int
    key: str
    impatient: bool
    """The first time the caller hangs up before it has read the answer."""
    pause: float
    """Seconds that the caller rests before it, or between a push and its cancelling."""


@dataclass(frozen=True)
class Step:
    """A fault, another one at the same time where the registry misbehaves as well, and the calls made meanwhile."""

    fault: Fault
    beside: Fault | None
    calls: list[Call]

    @property
    def faults(self) -> list[Fault]:
        """Both."""
        return [self.fault] if self.beside is None else [self.fault, self.beside]


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    seed: int
    steps: list[Step]
    commits: int
    """How many commits it needs; the first `BUILT` are built before the first fault."""
    built: int
    registries: int
    """How many registries; the third is the one with tokens."""

    @property
    def faults(self) -> Counter[Kind]:
        """How many faults of each kind."""
        return Counter(fault.kind for step in self.steps for fault in step.faults)

    @property
    def calls(self) -> Counter[CallKind]:
        """How many calls of each kind."""
        return Counter(call.kind for step in self.steps for call in step.calls)


def draw(seed: int, *, jobs: int, faults: int) -> Plan:
    """The plan that a seed stands for."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    drawn = [_fault(chance, kind) for kind in _kinds(chance, faults)]
    if faults >= _LONG_PLAN:
        first_away = next(index for index, fault in enumerate(drawn) if fault.kind == Kind.REDIS_AWAY)
        drawn[first_away] = Fault(Kind.REDIS_AWAY, LONG_AWAY_SECONDS, drawn[first_away].choice)
    pairs = _paired(chance, drawn)
    built, registries = (6, 3) if faults >= _LONG_PLAN else (2, 2)
    calls, commits = _calls(chance, jobs, built, registries)
    return Plan(seed, _steps(pairs, calls), commits, built, registries)


def _kinds(chance: random.Random, faults: int) -> list[Kind]:
    if faults < _LONG_PLAN:
        return chance.sample(QUICK, min(faults, len(QUICK))) + chance.choices(QUICK, k=max(0, faults - len(QUICK)))
    kinds = [*Kind, *chance.choices(list(Kind), k=faults - len(Kind))]
    chance.shuffle(kinds)
    return kinds


def _fault(chance: random.Random, kind: Kind) -> Fault:
    return Fault(kind, round(chance.uniform(*_SECONDS.get(kind, _USUAL_SECONDS)), 1), chance.randrange(1_000_000))


def _paired(chance: random.Random, faults: list[Fault]) -> list[tuple[Fault, Fault | None]]:
    """Some faults of the registry fall together with a fault of something else."""
    pairs: list[tuple[Fault, Fault | None]] = []
    for fault in faults:
        if pairs and chance.random() < 0.25 and is_proxied(fault) and not is_proxied(pairs[-1][0]) and not pairs[-1][1]:
            pairs[-1] = (pairs[-1][0], fault)
        else:
            pairs.append((fault, None))
    return pairs


def is_proxied(fault: Fault) -> bool:
    """Whether it is the proxy in front of the registry that misbehaves."""
    return (fault.kind.value.startswith("registry ") and fault.kind != Kind.REGISTRY_RESTARTED) or (
        fault.kind == Kind.TOKEN_EXPIRES
    )


def _calls(chance: random.Random, jobs: int, built: int, registries: int) -> tuple[list[Call], int]:
    calls: list[Call] = []
    commits, unpublished = built, list(range(built))
    kinds = chance.choices(list(_SHARES), weights=list(_SHARES.values()), k=jobs)
    for number, kind in enumerate(kinds):
        commit = chance.randrange(built)
        if kind == CallKind.COMPILE:
            commit, commits = commits, commits + 1
        elif kind == CallKind.PUBLISH:
            if not unpublished:
                kind = CallKind.PUSH  # noqa: PLW2901 - every built commit is published by now
            else:
                commit = unpublished.pop(0)
        calls.append(
            Call(
                number,
                kind,
                commit,
                registry=chance.randrange(registries),
                key=f"chaos-{chance.getrandbits(96):024x}",
                impatient=chance.random() < 0.2,
                pause=round(chance.uniform(0, 0.4), 2),
            )
        )
    return calls, commits


def _steps(pairs: list[tuple[Fault, Fault | None]], calls: list[Call]) -> list[Step]:
    """The calls, spread over the faults by how long these last."""
    weights = [2 + fault.seconds for fault, _ in pairs]
    steps, given, passed = [], 0, 0.0
    for (fault, beside), weight in zip(pairs, weights, strict=True):
        passed += weight
        until = round(len(calls) * passed / sum(weights))
        if fault.kind in _NEEDS_A_BUILD:
            _bring_forward(CallKind.COMPILE, calls, given)
        steps.append(Step(fault, beside, calls[given:until]))
        given = until
    return steps


def _bring_forward(kind: CallKind, calls: list[Call], place: int) -> None:
    """Exchange the call at this place for the next one of a kind, if one is left."""
    found = next((index for index in range(place, len(calls)) if calls[index].kind == kind), None)
    if found is not None:
        calls[place], calls[found] = calls[found], calls[place]
