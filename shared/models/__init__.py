"""The tables. A row of `jobs` is the job; everything else is what jobs are about."""

from shared.models.algorithms import Algorithm, Version
from shared.models.audit import AuditEvent
from shared.models.base import Base
from shared.models.blobs import RegistryBlob
from shared.models.builds import Build, BuildStatus
from shared.models.calls import CallRequest, CallState
from shared.models.idempotency import IdempotencyKey
from shared.models.jobs import Job, JobKind, JobState
from shared.models.keys import ApiKey, KeyKind, Owner
from shared.models.marks import PeriodicRun
from shared.models.pushes import ImagePush, PushEvent, PushState, PushTally
from shared.models.refreshes import Refresh, RefreshKind, StepState
from shared.models.registries import PauseCause, Registry
from shared.models.instances import Instance, InstanceState
from shared.models.webhooks import DeliveryState, Webhook, WebhookDelivery
from shared.models.workers import WorkerProcess

__all__ = [
    "Algorithm",
    "ApiKey",
    "AuditEvent",
    "Base",
    "Build",
    "BuildStatus",
    "CallRequest",
    "CallState",
    "DeliveryState",
    "IdempotencyKey",
    "ImagePush",
    "Job",
    "JobKind",
    "JobState",
    "KeyKind",
    "Mark",
    "Owner",
    "PauseCause",
    "PushEvent",
    "PushState",
    "PushTally",
    "Refresh",
    "RefreshKind",
    "Registry",
    "RegistryBlob",
    "Serving",
    "InstanceState",
    "StepState",
    "Version",
    "Webhook",
    "WebhookDelivery",
    "WorkerProcess",
]
