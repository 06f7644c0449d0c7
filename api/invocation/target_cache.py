"""Cache the targets of calls for as long as the rows that they follow from stay the same.

A warm call costs one query, for all rows that decide about its version, image and instance
(`shared.invocation.versions`, `shared.pulls.resolution`, `shared.instances.states`). A cached target is used only if
these rows are equal to those that it was found with; no entry is trusted for a period of time. An image in the
platform's own store costs a second query.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Row, Select, bindparam, select

from api.invocation.target import AwaitedPush, Target
from shared.algorithms import FULL_HASH
from shared.db.engine import database
from shared.db.models import Algorithm, ImagePush, Instance, InstanceState, Registry, Version
from shared.invocation.versions import SEMANTIC_VERSION
from shared.keys import Caller
from shared.pulls.resolution import still_runs_from_store

MAX_ENTRIES = 4096
Found = Target | AwaitedPush

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


class TargetCache:
    """The cache of one process."""

    def __init__(self) -> None:
        self._entries: dict[tuple[Caller, str, str], tuple[Sequence[Row[Any]], Target]] = {}

    def find(self, caller: Caller, name: str, version: str | None, find: Callable[[], Found]) -> Found:
        """Return the target of a call. `find` is called where it is not cached, and may raise its own errors."""
        if version is None or "/" not in name:
            return find()
        if SEMANTIC_VERSION.fullmatch(version):
            query = _BY_NUMBER
        elif FULL_HASH.fullmatch(version):
            query = _BY_HASH
        else:  # depends on all other versions
            return find()
        key = (caller, name, version)
        rows = _read(query, name, version)
        cached_rows, cached = self._entries.get(key, (None, None))
        if cached is not None and cached_rows == rows and _has_image(cached):
            return cached
        target = find()
        # Rows that changed during `find` may have been read in two states.
        if isinstance(target, Target) and _is_cacheable(target) and _read(query, name, version) == rows:
            if len(self._entries) >= MAX_ENTRIES:
                self._entries.clear()
            self._entries[key] = (rows, target)
        return target


target_cache = TargetCache()


def _is_cacheable(target: Target) -> bool:
    """Return whether the target takes calls and so does not depend on the clock."""
    return target.instance is not None and target.instance.state == InstanceState.READY


def _has_image(target: Target) -> bool:
    """Return whether the image may still run, as far as that does not follow from `_ROWS`."""
    desired = target.desired
    return desired.registry_id is not None or still_runs_from_store(desired.version_id, desired.digest)


def _read(query: Select[Any], name: str, version: str) -> Sequence[Row[Any]]:
    owner, _, algorithm_name = name.partition("/")
    return database().ask(query, owner=owner, name=algorithm_name, version=version)
