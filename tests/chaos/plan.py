"""Draw the plan of a run from its seed: the faults in their order, and the calls made while they last."""

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
    SLOW_CLIENTS = "slow bodies and slow pushes of one key"
    BROKEN_PUSHES = "git pushes that break off"
    CALLERS_LEAVE = "callers leave in mid-request"
    BUILD_FILLS_DISK = "build that fills the disk"
    BUILD_FORKS = "build that forks without end"
    BUILD_FLOODS = "build that floods its output"
    HOSTILE_CALLS = "calls that fork, fill, flood and hang"


HOSTILE_BUILDS = (Kind.BUILD_FILLS_DISK, Kind.BUILD_FORKS, Kind.BUILD_FLOODS)


class CallKind(StrEnum):
    """A request of a caller."""

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
    Kind.SLOW_CLIENTS: (8, 12),
    Kind.BROKEN_PUSHES: (4, 6),
    Kind.BUILD_FILLS_DISK: (5, 8),
    Kind.BUILD_FORKS: (5, 8),
    Kind.BUILD_FLOODS: (5, 8),
    Kind.HOSTILE_CALLS: (10, 15),
}
_DEFAULT_SECONDS = (1.5, 4)
_NEEDS_A_BUILD = (Kind.ENGINE_RESTARTED_IN_BUILD, Kind.DISK_FULL)
LONG_AWAY_SECONDS = 60
_LONG_PLAN = len(Kind)
"""A plan with at least this many faults has every kind, and a minute without Redis."""

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
    Kind.SLOW_CLIENTS,
    Kind.BROKEN_PUSHES,
    Kind.CALLERS_LEAVE,
    Kind.BUILD_FLOODS,
    Kind.HOSTILE_CALLS,
)
"""The faults from which a short plan chooses; its registries use passwords only."""

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
    """One fault: its kind, its duration in seconds, and a number that chooses its target."""

    kind: Kind
    seconds: float
    choice: int


@dataclass(frozen=True)
class Call:
    """One request, which a caller sends until it is accepted."""

    number: int
    kind: CallKind
    commit: int
    """An index into the commits of the run; each compile and publish has its own commit."""
    registry: int
    key: str
    impatient: bool
    """The caller closes its first connection before it has read the response."""
    pause: float
    """Seconds that the caller waits before the call, or between a push and its cancellation."""


@dataclass(frozen=True)
class Step:
    """A fault, perhaps a second one of the registry at the same time, and the calls made meanwhile."""

    fault: Fault
    second: Fault | None
    calls: list[Call]

    @property
    def faults(self) -> list[Fault]:
        return [self.fault] if self.second is None else [self.fault, self.second]


@dataclass(frozen=True)
class Plan:
    """A complete run."""

    seed: int
    steps: list[Step]
    commits: int
    """The number of commits; the first `built` of them are built before the first fault."""
    built: int
    registries: int
    """The number of registries; the third one uses tokens."""

    @property
    def faults(self) -> Counter[Kind]:
        """The number of faults of each kind."""
        return Counter(fault.kind for step in self.steps for fault in step.faults)

    @property
    def calls(self) -> Counter[CallKind]:
        """The number of calls of each kind."""
        return Counter(call.kind for step in self.steps for call in step.calls)


def draw(seed: int, *, jobs: int, faults: int) -> Plan:
    """Return the plan of a seed."""
    rng = random.Random(seed)  # noqa: S311 - not a secret
    drawn = [_fault(rng, kind) for kind in _kinds(rng, faults)]
    if faults >= _LONG_PLAN:
        first_away = next(index for index, fault in enumerate(drawn) if fault.kind == Kind.REDIS_AWAY)
        drawn[first_away] = Fault(Kind.REDIS_AWAY, LONG_AWAY_SECONDS, drawn[first_away].choice)
    pairs = _paired(rng, drawn)
    built, registries = (6, 3) if faults >= _LONG_PLAN else (2, 2)
    calls, commits = _calls(rng, jobs, built, registries)
    return Plan(seed, _steps(pairs, calls), commits, built, registries)


def _kinds(rng: random.Random, faults: int) -> list[Kind]:
    if faults < _LONG_PLAN:
        return rng.sample(QUICK, min(faults, len(QUICK))) + rng.choices(QUICK, k=max(0, faults - len(QUICK)))
    kinds = [*Kind, *rng.choices(list(Kind), k=faults - len(Kind))]
    rng.shuffle(kinds)
    return kinds


def _fault(rng: random.Random, kind: Kind) -> Fault:
    return Fault(kind, round(rng.uniform(*_SECONDS.get(kind, _DEFAULT_SECONDS)), 1), rng.randrange(1_000_000))


def _paired(rng: random.Random, faults: list[Fault]) -> list[tuple[Fault, Fault | None]]:
    """Put some faults of the registry together with another fault."""
    pairs: list[tuple[Fault, Fault | None]] = []
    for fault in faults:
        if pairs and rng.random() < 0.25 and is_proxied(fault) and not is_proxied(pairs[-1][0]) and not pairs[-1][1]:
            pairs[-1] = (pairs[-1][0], fault)
        else:
            pairs.append((fault, None))
    return pairs


def is_proxied(fault: Fault) -> bool:
    """Return whether the proxy in front of the registry injects the fault."""
    return (fault.kind.value.startswith("registry ") and fault.kind != Kind.REGISTRY_RESTARTED) or (
        fault.kind == Kind.TOKEN_EXPIRES
    )


def _calls(rng: random.Random, jobs: int, built: int, registries: int) -> tuple[list[Call], int]:
    calls: list[Call] = []
    commits, unpublished = built, list(range(built))
    kinds = rng.choices(list(_SHARES), weights=list(_SHARES.values()), k=jobs)
    for number, kind in enumerate(kinds):
        commit = rng.randrange(built)
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
                registry=rng.randrange(registries),
                key=f"chaos-{rng.getrandbits(96):024x}",
                impatient=rng.random() < 0.2,
                pause=round(rng.uniform(0, 0.4), 2),
            )
        )
    return calls, commits


def _steps(pairs: list[tuple[Fault, Fault | None]], calls: list[Call]) -> list[Step]:
    """Spread the calls over the faults, by the duration of each."""
    weights = [2 + fault.seconds for fault, _ in pairs]
    steps, given, passed = [], 0, 0.0
    for (fault, second), weight in zip(pairs, weights, strict=True):
        passed += weight
        until = round(len(calls) * passed / sum(weights))
        if fault.kind in _NEEDS_A_BUILD:
            _bring_forward(CallKind.COMPILE, calls, given)
        steps.append(Step(fault, second, calls[given:until]))
        given = until
    return steps


def _bring_forward(kind: CallKind, calls: list[Call], position: int) -> None:
    """Exchange the call at this index with the next one of a kind, if there is one."""
    found = next((index for index in range(position, len(calls)) if calls[index].kind == kind), None)
    if found is not None:
        calls[position], calls[found] = calls[found], calls[position]
