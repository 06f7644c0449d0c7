"""Run a refresh job: of nodes one after the other, or of running instances. A later worker resumes where it stopped."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.db.engine import database
from shared.db.models import Job, JobState, Refresh, RefreshKind, StepState
from shared.errors import ErrorClass, WorkError
from shared.fence import Claim, lock_claimed
from shared.refreshes import (
    RefreshOptions,
    RefreshStep,
    mark_uncordoned,
    matching_runners,
    nodes_done_before,
    read_steps,
    refreshes_to_uncordon,
    steps_of,
    write_steps,
)
from shared.settings import settings
from workers.app import REFRESH_TIMEOUT_SECONDS
from workers.jobs.db_retry import retry_db_write
from workers.jobs.executor import Finish
from workers.jobs.heartbeat import Heartbeat
from workers.nodes.node_pool import NodePool, node_pool
from workers.nodes.restart_hooks import COMMAND_TIMEOUT_SECONDS, restart_hook
from workers.nodes.rolling_refresh import plan_nodes, refresh_nodes, steps_for_nodes

log = structlog.get_logger(__name__)

RestartInstance = Callable[[str], tuple[StepState, str]]
"""Restarts the instance with this id; returns the state and the message of its step."""


class RefreshWork:
    """Does one refresh under a claim."""

    def __init__(self, claim: Claim, restart_instance: RestartInstance) -> None:
        self._claim = claim
        self._restart_instance = restart_instance
        self._steps: Sequence[RefreshStep] = ()
        self._written: list[dict[str, Any]] = []

    def write(self, session: Session) -> None:
        steps = self._steps
        snapshot = [asdict(step) for step in steps]
        if snapshot == self._written:
            return
        lock_claimed(session, self._claim)
        write_steps(session, self._claim.job_id, steps)
        # The snapshot, not the steps as they are by now: what changed meanwhile is written the next time.
        self._written = snapshot

    def do(self, heartbeat: Heartbeat) -> Finish:
        with database().reading() as session:
            refresh = session.scalars(select(Refresh).where(Refresh.job_id == self._claim.job_id)).one()
        options = RefreshOptions.read(refresh.options)
        self._steps = read_steps(refresh.progress)
        try:
            if options.what == RefreshKind.RUNNERS:
                self._refresh_instances(options, heartbeat)
            else:
                self._refresh_nodes(options, heartbeat)
        except SoftTimeLimitExceeded:
            raise WorkError(
                ErrorClass.TRANSIENT,
                f"It did not end within {REFRESH_TIMEOUT_SECONDS // 3600} hours; another attempt does what is left.",
            ) from None
        return lambda session: mark_uncordoned(session, self._claim.job_id)

    def _refresh_instances(self, options: RefreshOptions, heartbeat: Heartbeat) -> None:
        """Restart the instances, so that their images are pulled again; no node is changed."""
        if not self._steps:
            with database().reading() as session:
                self._steps = steps_of(matching_runners(session, options))
        for step in self._steps:
            if not step.ended:
                heartbeat.cancel_token.check()
                step.state, step.step = StepState.RUNNING, "It is being restarted."
                heartbeat.record_progress()
                step.state, step.step = self._restart_instance(str(step.instance_id))

    def _refresh_nodes(self, options: RefreshOptions, heartbeat: Heartbeat) -> None:
        pool, job_id = node_pool(), self._claim.job_id
        if not self._steps:
            with database().reading() as session:
                done_before = nodes_done_before(session, job_id)
            self._steps = steps_for_nodes(pool, options, done_before)
        if options.dry_run:
            plan_nodes(pool, self._steps, heartbeat.record_progress, heartbeat.cancel_token)
            return
        restart = restart_hook(options.restart, job_id, settings(), heartbeat.cancel_token)
        # A disruption budget, or a machine that boots slowly, may keep a node's step unchanged for that long.
        max_pause = max(settings().node_drain_timeout_seconds, settings().node_ready_seconds, COMMAND_TIMEOUT_SECONDS)
        record_progress = partial(heartbeat.record_progress, pause_seconds=max_pause)
        save = partial(retry_db_write, self.write)
        try:
            refresh_nodes(pool, self._steps, job_id, restart, save, record_progress, heartbeat.cancel_token)
        except BaseException:
            self._uncordon(pool)
            raise

    def _uncordon(self, pool: NodePool) -> None:
        """Leave no node cordoned, unless another worker has taken the job over and may be changing one.

        If it fails, the worker that resumes the job does it, or the sweep once the job has ended.
        """
        with suppress(WorkError, SQLAlchemyError):
            with database().reading() as session:
                job = session.scalars(select(Job).where(Job.id == self._claim.job_id)).one()
            if job.state != JobState.RUNNING or job.lease_owner == self._claim.owner:
                log.info("nodes_uncordoned", nodes=pool.uncordon(job.id))


def uncordon_after_lost_workers() -> None:
    """Uncordon the nodes of refreshes that were cancelled or lost while their worker was dead.

    If the cluster does not respond, the sweep has it done again.
    """
    with database().reading() as session:
        job_ids = refreshes_to_uncordon(session)
    for job_id in job_ids:
        try:
            nodes = node_pool().uncordon(job_id)
        except WorkError as error:
            if error.error_class != ErrorClass.INVALID:
                log.warning("uncordon_failed", job_id=job_id, error=error.message)
                return
            nodes = []  # without a cluster there are no nodes that could be cordoned
        if nodes:
            log.warning("nodes_uncordoned", job_id=job_id, nodes=nodes)
        with database().writing() as session:
            mark_uncordoned(session, job_id)
