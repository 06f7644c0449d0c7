"""The work of a refresh: node after node, or what runs, from wherever the worker before this one had got to.

The light way: what runs is started anew, so that the registry is asked again; no node is touched.

Uncordoning what a refresh left behind that was cancelled, or lost for good, while its worker was dead.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.cancellation import CancelToken
from shared.db.engine import database
from shared.db.models import Instance, InstanceState, Job, JobState, Refresh, RefreshKind, StepState
from shared.errors import ErrorClass, WorkError
from shared.fence import Claim, lock_claimed
from shared.instances.states import begin_draining
from shared.refreshes import (
    RefreshOptions,
    RefreshStep,
    done_by_the_last,
    mark_released,
    matching_runners,
    read_steps,
    steps_of,
    unreleased,
    write_steps,
)
from shared.settings import settings
from workers.app import REFRESH_SECONDS
from workers.jobs.db_retry import retry_db_write
from workers.jobs.executor import Finish
from workers.jobs.heartbeat import Heartbeat
from workers.nodes.fleet import Fleet, fleet
from workers.nodes.restart_hooks import COMMAND_TIMEOUT_SECONDS, restart_hook
from workers.nodes.rolling import plan_nodes, refresh_nodes, steps_for
from workers.serving.factory import backend

log = structlog.get_logger(__name__)


class RefreshWork:
    """One refresh under a claim."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._entries: Sequence[RefreshStep] = ()
        self._written: list[dict[str, Any]] = []

    def write(self, session: Session) -> None:
        """Write down how far each is."""
        entries = self._entries
        seen = [asdict(entry) for entry in entries]
        if seen == self._written:
            return
        lock_claimed(session, self._claim)
        write_steps(session, self._claim.job_id, entries)
        # As it was seen, not as it is by now: what changed meanwhile is written the next time.
        self._written = seen

    def do(self, keeper: Heartbeat) -> Finish:
        """Refresh what is not done yet."""
        with database().reading() as session:
            refresh = session.scalars(select(Refresh).where(Refresh.job_id == self._claim.job_id)).one()
        options = RefreshOptions.read(refresh.options)
        self._entries = read_steps(refresh.progress)
        try:
            if options.what == RefreshKind.RUNNERS:
                self._restart_runners(options, keeper)
            else:
                self._refresh_nodes(options, keeper)
        except SoftTimeLimitExceeded:
            message = f"It was not done within {REFRESH_SECONDS // 3600} hours; what is left is taken up again."
            raise WorkError(ErrorClass.TRANSIENT, message) from None

        def finish(session: Session) -> None:
            mark_released(session, self._claim.job_id)

        return finish

    def _restart_runners(self, options: RefreshOptions, keeper: Heartbeat) -> None:
        if not self._entries:
            with database().reading() as session:
                self._entries = steps_of(matching_runners(session, options))
        restart_runners(self._entries, keeper.record_progress, keeper.stop)

    def _refresh_nodes(self, options: RefreshOptions, keeper: Heartbeat) -> None:
        nodes, job_id = fleet(), self._claim.job_id
        if not self._entries:
            with database().reading() as session:
                done_before = done_by_the_last(session, job_id)
            self._entries = steps_for(nodes, options, done_before)
        if options.dry_run:
            plan_nodes(nodes, self._entries, keeper.record_progress, keeper.stop)
            return
        restart = restart_hook(options.restart, job_id, settings(), keeper.stop)
        try:
            refresh_nodes(nodes, self._entries, job_id, restart, self._keep, _resting(keeper), keeper.stop)
        except BaseException:
            self._release(nodes)
            raise

    def _keep(self) -> None:
        def write() -> None:
            with database().writing() as session:
                self.write(session)

        retry_db_write(write)

    def _release(self, nodes: Fleet) -> None:
        """Leave no node cordoned, unless another worker has taken the job over and is at one.

        Where it fails, whoever goes on with the job sees to it, or the sweep once the job has ended.
        """
        with suppress(WorkError, SQLAlchemyError):
            with database().reading() as session:
                job = session.scalars(select(Job).where(Job.id == self._claim.job_id)).one()
            if job.state != JobState.RUNNING or job.lease_owner == self._claim.owner:
                released = nodes.release(job.id)
                log.info("released", nodes=released)


def _resting(keeper: Heartbeat) -> Callable[[], None]:
    """A node may stand still for as long as its settings say: a budget that refuses, a machine that starts slowly."""
    longest = max(settings().node_drain_timeout_seconds, settings().node_ready_seconds, COMMAND_TIMEOUT_SECONDS)
    return lambda: keeper.record_progress(rests=longest)


WHY = "It was to be pulled afresh."


def restart_runners(entries: Sequence[RefreshStep], moved: Callable[[], None], stop: CancelToken) -> None:
    """Have each that has not ended pulled and started anew.

    Raises:
        Stopped: the stop was asked for.
        WorkError: what runs them does not answer.
    """
    for entry in entries:
        if entry.ended:
            continue
        stop.check()
        entry.state, entry.step = StepState.RUNNING, "Is started anew."
        moved()
        entry.state, entry.step = _restart(str(entry.instance_id))


def _restart(instance_id: str) -> tuple[StepState, str]:
    with database().reading() as session:
        instance = session.scalars(select(Instance).where(Instance.id == instance_id)).one()
    if instance.state != InstanceState.READY:
        return StepState.SKIPPED, "It took no more calls by then."
    if backend().restart(instance):
        return StepState.DONE, "Its pods are replaced by ones that pull afresh, while it takes calls."
    with database().writing() as session:
        begin_draining(session, instance_id, WHY)
    return StepState.DONE, "It takes no new calls; the next one starts it anew, which asks the registry again."


log = structlog.get_logger(__name__)


def release_left_over() -> None:
    """Release the nodes of every ended refresh, as far as the cluster answers; the sweep has it done again."""
    with database().reading() as session:
        left = unreleased(session)
    for job_id in left:
        try:
            released = fleet().release(job_id)
        except WorkError as error:
            if error.error_class != ErrorClass.INVALID:
                log.warning("nodes cannot be released", job_id=job_id, error=error.message)
                return
            released = []  # there is no cluster, so nothing that could be cordoned
        if released:
            log.warning("nodes were left cordoned and are released", job_id=job_id, nodes=released)
        with database().writing() as session:
            mark_released(session, job_id)
