"""Fill a database with the rows of an installation after years, with a few statements in the database itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    String,
    case,
    cast,
    func,
    insert,
    literal,
    null,
    select,
    text,
)

from shared.db.clock import now_ms
from shared.db.models import Algorithm, Base, Build, ImagePush, Job, Owner, PushEvent, Registry, Version

Number = ColumnElement[int]

REGISTRIES = 20
PUSHES_A_VERSION = 4
VERSIONS_AN_ALGORITHM = 250
ALGORITHMS_AN_OWNER = 5
DIGEST = "sha256:" + "d" * 64
DAY_MS = 86_400_000
HASH_BEGINS = "0123456789abcdef0123456789ab"

LARGE = (Version, Build, Job, ImagePush, PushEvent)
OWNERS, ALGORITHMS, VERSIONS, BUILDS, COMPILES, PUSHES, PUSH_JOBS, RECORDED = range(1, 9)
"""Prefix of the ids of each table's rows."""


@dataclass(frozen=True)
class History:
    """The size of the history; all other numbers are in proportion."""

    pushes: int
    queued: int = 1_000
    """Number of pushes that are queued, the newest; about one in ten thousand is stalled."""

    @property
    def versions(self) -> int:
        """Number of pushed versions, each in several registries."""
        return self.pushes // PUSHES_A_VERSION

    @property
    def algorithms(self) -> int:
        return self.versions // VERSIONS_AN_ALGORITHM + 1

    @property
    def owners(self) -> int:
        return self.algorithms // ALGORITHMS_AN_OWNER + 1


def id_of(kind: int, number: int) -> str:
    """Return the id of a row from its number, from 1."""
    return f"{kind:08d}-0000-4000-8000-{number:012d}"


def hash_of(number: int) -> str:
    """Return the commit of a version from its number, from 1."""
    return f"{HASH_BEGINS}{number:012d}"


def make_history(engine: Engine, history: History) -> None:
    """Fill the empty tables, and update the statistics as autovacuum would (SQLite has none)."""
    indexes = [index for model in LARGE for index in Base.metadata.tables[model.__tablename__].indexes]
    with engine.begin() as connection:
        for index in indexes:  # created at the end, they take a fraction of the time
            index.drop(connection)
        _insert(connection, Owner, history.owners, _owner)
        _insert(connection, Registry, REGISTRIES, _registry)
        _insert(connection, Algorithm, history.algorithms, _algorithm)
        _insert(connection, Version, history.versions, _version)
        _insert(connection, Build, history.versions, _build)
        _insert(connection, Job, history.versions, _compile)
        _insert(connection, Job, history.pushes, lambda number: _push_job(number, history))
        _insert(connection, ImagePush, history.pushes, lambda number: _push(number, history))
        _insert(connection, PushEvent, history.pushes, lambda number: _event(number, history))
        for index in indexes:
            index.create(connection)
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


def _insert(connection: Connection, model: type[Base], count: int, columns: Callable[[Number], dict[str, Any]]) -> None:
    numbers = _numbers(count)
    values = columns(numbers.c.n)
    connection.execute(insert(model).from_select(list(values), select(*map(_expression, values.values()))))


def _numbers(count: int) -> CTE:
    first = select(cast(literal(1), BigInteger).label("n")).cte("numbers", recursive=True)
    return first.union_all(select(first.c.n + 1).where(first.c.n < count))


def _expression(value: Any) -> ColumnElement[Any]:
    if isinstance(value, ColumnElement):
        return value
    return null() if value is None else literal(value)


def _digits(number: Number) -> ColumnElement[str]:
    return func.substr(cast(number + 1_000_000_000_000, String), 2)


def _id(kind: int, number: Number) -> ColumnElement[str]:
    return literal(f"{kind:08d}-0000-4000-8000-").concat(_digits(number))


def _hash(version: Number) -> ColumnElement[str]:
    return literal(HASH_BEGINS).concat(_digits(version))


def _name(word: str, number: Number) -> ColumnElement[str]:
    return literal(word).concat(cast(number, String))


def _algorithm_of(version: Number) -> Number:
    return (version - 1) // VERSIONS_AN_ALGORITHM + 1


def _owner_of(algorithm: Number) -> Number:
    return (algorithm - 1) // ALGORITHMS_AN_OWNER + 1


def _version_of(push: Number) -> Number:
    return (push - 1) // PUSHES_A_VERSION + 1


def _registry_of(push: Number) -> Number:
    # Four consecutive ones of the twenty, and others for the next version.
    return (push - 1) % REGISTRIES + 1


def _state_of(push: Number, history: History) -> ColumnElement[str]:
    return case(
        (push > history.pushes - history.queued, "queued"),
        (push % 10_007 == 7, "stalled"),
        (push % 100 < 2, "failed"),
        (push % 200 == 5, "cancelled"),
        else_="succeeded",
    )


def _owner(number: Number) -> dict[str, Any]:
    return {"id": _id(OWNERS, number), "username": _name("owner", number), "image_name": _name("owner", number)}


def _registry(number: Number) -> dict[str, Any]:
    url = _name("registry", number).concat(".example.com")
    return {"id": _id(RECORDED, number), "registry_url": url, "updated_at": now_ms()}


def _algorithm(number: Number) -> dict[str, Any]:
    return {
        "id": _id(ALGORITHMS, number),
        "owner": _name("owner", _owner_of(number)),
        "name": _name("Algorithm", number),
        "image_path": _name("algorithm", number),
        "details": literal({}, Algorithm.details.type),
        "settings": literal({}, Algorithm.settings.type),
        "repository_url": "https://git.example.com/team/repository.git",
    }


def _version(number: Number) -> dict[str, Any]:
    return {
        "id": _id(VERSIONS, number),
        "algorithm_id": _id(ALGORITHMS, _algorithm_of(number)),
        "git_hash": _hash(number),
    }


def _build(number: Number) -> dict[str, Any]:
    return {
        "id": _id(BUILDS, number),
        "algorithm_id": _id(ALGORITHMS, _algorithm_of(number)),
        "version_id": _id(VERSIONS, number),
        "job_id": _id(COMPILES, number),
        "commit_sha": _hash(number),
        "status": "succeeded",
        "image_id": DIGEST,
    }


def _job(version: Number) -> dict[str, Any]:
    return {
        "owner": _name("owner", _owner_of(_algorithm_of(version))),
        "algorithm_id": _id(ALGORITHMS, _algorithm_of(version)),
        "version_id": _id(VERSIONS, version),
        "git_hash": _hash(version),
        "build_id": _id(BUILDS, version),
        "created_at": now_ms() - DAY_MS,
    }


def _compile(number: Number) -> dict[str, Any]:
    return {
        **_job(number),
        "id": _id(COMPILES, number),
        "kind": "compile",
        "state": "succeeded",
        "lock_name": literal("version:").concat(_hash(number)),
    }


def _push_job(number: Number, history: History) -> dict[str, Any]:
    shown = _state_of(number, history)
    image = _name("image:registry", _registry_of(number)).concat(".example.com/algorithm:")
    return {
        **_job(_version_of(number)),
        "id": _id(PUSH_JOBS, number),
        "kind": "push",
        "state": case((shown == "stalled", "queued"), else_=shown),
        "registry_id": _id(RECORDED, _registry_of(number)),
        "push_id": _id(PUSHES, number),
        "generation": 1,
        "lock_name": image.concat(_hash(_version_of(number))),
        "dispatched_at": now_ms(),
    }


def _push(number: Number, history: History) -> dict[str, Any]:
    image = _name("registry", _registry_of(number)).concat(".example.com/algorithm:")
    return {
        "id": _id(PUSHES, number),
        "version_id": _id(VERSIONS, _version_of(number)),
        "registry_id": _id(RECORDED, _registry_of(number)),
        "registry_url": _name("registry", _registry_of(number)).concat(".example.com"),
        "job_id": _id(PUSH_JOBS, number),
        "generation": 1,
        "state": _state_of(number, history),
        "message": "As it was observed last.",
        "image": image.concat(_hash(_version_of(number))),
        "digest": DIGEST,
        "updated_at": now_ms(),
        "finished_at": now_ms(),
        "last_success_digest": DIGEST,
        "last_success_image": image.concat(_hash(_version_of(number))),
        "last_success_at": now_ms(),
        "looked_at": now_ms() - number,
        "seen_at": now_ms(),
    }


def _event(number: Number, history: History) -> dict[str, Any]:
    shown = _state_of(number, history)
    return {
        "push_id": _id(PUSHES, number),
        "job_id": _id(PUSH_JOBS, number),
        "generation": 1,
        "kind": case((shown == "queued", "retry"), (shown == "stalled", "stalled-unclaimed"), else_="ended"),
        "state": shown,
        "created_at": now_ms() - DAY_MS,
    }
