"""The tables. A row of `jobs` is the job; everything else is what jobs are about."""

from shared.db.models.algorithms import Algorithm, Build, BuildStatus, LoadCheckState, SourceDelivery, Version
from shared.db.models.base import Base
from shared.db.models.instances import CallError, CallRequest, CallState, Instance, InstanceState
from shared.db.models.jobs import Job, JobKind, JobState, PeriodicRun, Refresh, RefreshKind, StepState, WorkerProcess
from shared.db.models.keys import ApiKey, AuditEvent, IdempotencyKey, KeyKind, Owner
from shared.db.models.pushes import ImagePush, PushEvent, PushState, PushTally, RegistryBlob
from shared.db.models.registries import DefaultLevel, DefaultRegistry, PauseCause, Registry
from shared.db.models.webhooks import DeliveryState, Webhook, WebhookDelivery

__all__ = [
    "Algorithm",
    "ApiKey",
    "AuditEvent",
    "Base",
    "Build",
    "BuildStatus",
    "CallError",
    "CallRequest",
    "CallState",
    "DefaultLevel",
    "DefaultRegistry",
    "DeliveryState",
    "IdempotencyKey",
    "ImagePush",
    "Instance",
    "InstanceState",
    "Job",
    "JobKind",
    "JobState",
    "KeyKind",
    "LoadCheckState",
    "Owner",
    "PauseCause",
    "PeriodicRun",
    "PushEvent",
    "PushState",
    "PushTally",
    "Refresh",
    "RefreshKind",
    "Registry",
    "RegistryBlob",
    "SourceDelivery",
    "StepState",
    "Version",
    "Webhook",
    "WebhookDelivery",
    "WorkerProcess",
]
