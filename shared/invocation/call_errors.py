"""The last errors that algorithms returned for calls: a bounded number for each algorithm and each owner."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, delete, insert, select
from sqlalchemy.orm import Session

from shared.db.models import Algorithm, CallError

MAX_PER_ALGORITHM = 100
MAX_PER_OWNER = 1000
MAX_CHARACTERS = 16 * 1024
"""Of one error. The beginning and the end of a stack trace say most, so the middle is left out."""
_CUT = "\n…\n"


@dataclass(frozen=True)
class ReturnedError:
    """An error that an algorithm returned. Of the call's input, `text` has only what the algorithm repeated."""

    owner: str
    algorithm_id: str
    version_id: str
    text: str


def shorten(text: str) -> str:
    """Return a text within the limit."""
    if len(text) <= MAX_CHARACTERS:
        return text
    half = (MAX_CHARACTERS - len(_CUT)) // 2
    return f"{text[:half]}{_CUT}{text[-half:]}"


def record_errors(session: Session, errors: Sequence[ReturnedError]) -> None:
    """Record errors of one owner's algorithms, and delete the oldest ones above the limits."""
    session.execute(
        insert(CallError),
        [
            {
                "owner": error.owner,
                "algorithm_id": error.algorithm_id,
                "version_id": error.version_id,
                "logs": error.text,
            }
            for error in errors
        ],
    )
    for algorithm_id in sorted({error.algorithm_id for error in errors}):
        _delete_above(session, CallError.algorithm_id == algorithm_id, MAX_PER_ALGORITHM)
    _delete_above(session, CallError.owner == errors[0].owner, MAX_PER_OWNER)


def errors_of_algorithm(algorithm: Algorithm) -> Select[tuple[CallError]]:
    """Return a query for the errors of an algorithm, newest first."""
    return _newest(CallError.algorithm_id == algorithm.id)


def errors_of_owner(owner: str, readable: Select[tuple[str]] | None) -> Select[tuple[CallError]]:
    """Return a query for the errors of an owner's algorithms, or of the readable ones among them, newest first."""
    present = select(Algorithm.id).where(Algorithm.owner == owner, Algorithm.deleted_at.is_(None))
    query = _newest(CallError.owner == owner).where(CallError.algorithm_id.in_(present))
    return query if readable is None else query.where(CallError.algorithm_id.in_(readable))


def delete_errors(session: Session, algorithm_id: str) -> None:
    """Delete all errors of an algorithm."""
    session.execute(delete(CallError).where(CallError.algorithm_id == algorithm_id))


def _newest(condition: ColumnElement[bool]) -> Select[tuple[CallError]]:
    return select(CallError).where(condition).order_by(CallError.seq.desc()).limit(MAX_PER_ALGORITHM)


def _delete_above(session: Session, condition: ColumnElement[bool], maximum: int) -> None:
    oldest_kept = (
        select(CallError.seq).where(condition).order_by(CallError.seq.desc()).offset(maximum - 1).limit(1)
    ).scalar_subquery()
    session.execute(
        delete(CallError).where(condition, CallError.seq < oldest_kept).execution_options(synchronize_session=False)
    )
