"""Start the instance of a job, and restart a running one."""

from typing import cast

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.db.engine import database
from shared.db.models import Algorithm, Instance, InstanceState, Job, Registry, StepState, Version
from shared.errors import ErrorClass, WorkError
from shared.fence import Claim
from shared.instances.states import begin_draining, mark_ready, mark_replaced, mark_unneeded, record_start_progress
from shared.registries.credentials import credential_provider
from workers.jobs.executor import Finish
from workers.jobs.heartbeat import Heartbeat
from workers.serving.backend import InstanceSpec, serving_backend
from workers.serving.capacity import free_capacity_of_owner
from workers.serving.reconcile import why_outdated

log = structlog.get_logger(__name__)


class ServeWork:
    """Starts one instance under a claim."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._instance_id: str | None = None
        self._message = self._written_message = ""

    def write(self, session: Session) -> None:
        message = self._message  # once: the other thread may change it meanwhile
        if self._instance_id is not None and message != self._written_message:
            record_start_progress(session, self._instance_id, message)
            self._written_message = message

    def do(self, heartbeat: Heartbeat) -> Finish:
        with database().reading() as session:
            spec = _read_spec(session, self._claim)
        if isinstance(spec, str):
            return _finish_unneeded(self._claim, reason=spec)
        instance_id = self._instance_id = spec.instance.id

        def report(message: str) -> None:
            self._message = message
            heartbeat.record_progress()

        free_capacity_of_owner(spec.instance.owner)
        backend = serving_backend()
        if backend.one_per_version:
            # Before the start, because from then on no call may go to the instance that this one replaces, not even
            # the call of somebody who pins its image at this moment.
            with database().writing() as session:
                mark_replaced(session, spec.instance)
        started = backend.start(spec, report, heartbeat.cancel_token)
        log.info(
            "instance_started", instance_id=instance_id, image=spec.instance.image, runtime_ref=started.runtime_ref
        )

        def finish(session: Session) -> None:
            # If the instance was ended meanwhile, this changes no row, and `remove_orphans` ends what was started.
            mark_ready(session, instance_id, endpoint=started.endpoint, runtime_ref=started.runtime_ref)

        return finish


def restart_instance(instance_id: str) -> tuple[StepState, str]:
    """Have a running instance replaced by one that pulls the image again; return the result as a step of a refresh.

    Raises:
        WorkError: the engine or the cluster does not respond (unavailable).
    """
    with database().reading() as session:
        instance = session.scalars(select(Instance).where(Instance.id == instance_id)).one()
    if instance.state != InstanceState.READY:
        return StepState.SKIPPED, "It had ended already."
    if serving_backend().restart(instance):
        return StepState.DONE, "Its pods are replaced by ones that pull the image again, while it takes calls."
    with database().writing() as session:
        begin_draining(session, instance_id, "It was drained by a refresh.")
    return StepState.DONE, "It takes no new calls. The next call starts an instance that pulls the image again."


def _finish_unneeded(claim: Claim, *, reason: str) -> Finish:
    def finish(session: Session) -> None:
        instance_id = session.scalars(select(Job.instance_id).where(Job.id == claim.job_id)).one()
        mark_unneeded(session, str(instance_id), reason)

    return finish


def _read_spec(session: Session, claim: Claim) -> InstanceSpec | str:
    """Return what to start, or the reason why it is not needed any more.

    Raises:
        WorkError: the registry was deleted (invalid), or its credentials cannot be decrypted (auth).
    """
    instance, algorithm, version, registry = cast(
        "tuple[Instance, Algorithm, Version, Registry | None]",
        session.execute(
            select(Instance, Algorithm, Version, Registry)
            .join(Job, Job.instance_id == Instance.id)
            .join(Algorithm, Algorithm.id == Instance.algorithm_id)
            .join(Version, Version.id == Instance.version_id)
            .outerjoin(Registry, Registry.id == Instance.registry_id)
            .where(Job.id == claim.job_id)
        ).one(),
    )
    if instance.state != InstanceState.PENDING:
        return instance.message
    if registry is not None and registry.deleted_at is not None:
        raise WorkError(ErrorClass.INVALID, "The registry was deleted: call again.")
    outdated = why_outdated(session, instance)
    if outdated is not None:
        return outdated
    return InstanceSpec(
        instance,
        algorithm.path,
        version.git_hash,
        registry,
        None if registry is None else credential_provider(registry).for_reading(),
    )
