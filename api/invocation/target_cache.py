"""What calls were served by, for as long as everything that this was concluded from stays as it was.

A warm call asks the database one question, for the rows that its version, its place and its serving are concluded from
(`shared.invocation.versions`, `shared.pulls.resolution`, `shared.instances.desired`). Are they what they were, so is the
conclusion; nothing is believed for a time. Permissions and patterns are concluded anew wherever anything differs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, bindparam, select

from api.invocation.target import Target
from shared.algorithms import FULL_HASH
from shared.db.engine import database
from shared.db.models import Algorithm, ImagePush, Instance, InstanceState, Registry, Version
from shared.invocation.versions import SEMANTIC_VERSION
from shared.keys import Caller

MAX_ENTRIES = 4096
"""Conclusions that a process keeps."""

Called = tuple[Caller, str, str]
"""Who called what: the caller, OWNER/NAME, and a whole hash or number."""


@dataclass(frozen=True)
class Conclusion:
    """What a call was served by, and the rows from which that follows."""

    rows: Sequence[Row[Any]]
    found: Target


class TargetCache:
    """The conclusions of one process."""

    def __init__(self) -> None:
        self._known: dict[Called, Conclusion] = {}

    def find(self, caller: Caller, name: str, version: str | None, find: Callable[[], Target]) -> Target:
        """What a call is served by; `find` concludes it where it is not known.

        Raises:
            RequestError: as `find`.
        """
        question = None if version is None else _question_for(version)
        if version is None or question is None or "/" not in name:
            return find()
        called = (caller, name, version)
        rows = _ask(question, name, version)
        known = self._known.get(called)
        if known is not None and known.rows == rows:
            return known.found
        found = find()
        # What changed while it was concluded may have been seen by half.
        if _follows_from_rows(found) and _ask(question, name, version) == rows:
            if len(self._known) >= MAX_ENTRIES:
                self._known.clear()
            self._known[called] = Conclusion(rows, found)
        return found


remembered = TargetCache()
"""Those of this process."""


def _follows_from_rows(found: Target) -> bool:
    """Whether it takes calls, and would not be another for reasons that stand elsewhere: builds, or the clock."""
    takes_calls = found.instance is not None and found.instance.state == InstanceState.READY
    return takes_calls and found.wanted.registry_id is not None


def _question_for(version: str) -> Select[Any] | None:
    """What to ask of a version that is named whole; None: it is not, and which one is meant depends on all others."""
    if SEMANTIC_VERSION.fullmatch(version):
        return _BY_NUMBER
    return _BY_HASH if FULL_HASH.fullmatch(version) else None


def _ask(question: Select[Any], name: str, version: str) -> Sequence[Row[Any]]:
    owner, _, algorithm_name = name.partition("/")
    return database().ask(question, owner=owner, name=algorithm_name, version=version)


_ROWS = (
    select(
        Algorithm.id,
        Algorithm.settings,
        Version.id,
        Version.publish_state,
        Version.callability,
        Version.pinned_registry_id,
        ImagePush.id,
        ImagePush.last_success_image,
        ImagePush.last_success_digest,
        ImagePush.last_success_seq,
        Registry.registry_url,
        Registry.plain_http,
        Registry.deleted_at,
        Instance.id,
        Instance.image,
        Instance.network,
        Instance.endpoint,
    )
    .join_from(Algorithm, Version, Version.algorithm_id == Algorithm.id)
    .outerjoin(ImagePush, ImagePush.version_id == Version.id)
    .outerjoin(Registry, Registry.id == ImagePush.registry_id)
    .outerjoin(
        Instance, (Instance.version_id == Version.id) & (Instance.state == bindparam("ready", InstanceState.READY))
    )
    .where(
        Algorithm.owner == bindparam("owner"),
        Algorithm.name == bindparam("name"),
        Algorithm.deleted_at.is_(None),
    )
    .order_by(ImagePush.seq, Instance.seq)
)
_BY_NUMBER = _ROWS.where(Version.semantic_version == bindparam("version"))
_BY_HASH = _ROWS.where(Version.git_hash == bindparam("version"))
