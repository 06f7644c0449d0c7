"""Name and label the objects of instances, so that Longshore finds its own again.

The keys are a wire format: objects in running clusters carry them.
"""

import re

from shared.db.models import Instance
from workers.serving.backend import InstanceSpec

MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
OWNER = "longshore.io/owner"
ALGORITHM = "longshore.io/algorithm"
VERSION = "longshore.io/version"
INSTANCE = "longshore.io/serving"
REGISTRY = "longshore.io/registry"
NETWORK = "longshore.io/network"
STARTED = "longshore.io/started"
"""Annotation of the last start that applied the object: `SECONDS/ID`, the seconds since 1970."""
PATH = "longshore.io/path"
"""Annotation: OWNER/NAME in full; the value of a label is limited in length and characters."""
GIT_HASH = "longshore.io/git-hash"
RESTARTED = "kubectl.kubernetes.io/restartedAt"
"""Annotation of a pod template: a new value replaces the pods, as with `kubectl rollout restart`."""

MANAGED_SELECTOR = f"{MANAGED_BY}=longshore"
RUNNER_SELECTOR = f"{MANAGED_SELECTOR},{COMPONENT}=runner"
PULL_SECRET_SELECTOR = f"{MANAGED_SELECTOR},{COMPONENT}=pull"


def version_name(version_id: str) -> str:
    """Return the name of a version's Deployment and Service: a DNS label (RFC 1123)."""
    return f"longshore-{version_id}"


def pull_secret_name(registry_id: str) -> str:
    return f"longshore-pull-{registry_id}"


def label_value(text: str) -> str:
    """Return as much of a text as the value of a label can hold: 63 letters, digits, `-`, `_` and `.`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")


def common_labels(component: str) -> dict[str, str]:
    return {MANAGED_BY: "longshore", COMPONENT: component}


def version_labels(instance: Instance) -> dict[str, str]:
    """Return the labels that all images of a version share: the selector of its Deployment and Service."""
    return {**common_labels("runner"), VERSION: instance.version_id}


def instance_labels(spec: InstanceSpec) -> dict[str, str]:
    instance = spec.instance
    return {
        **version_labels(instance),
        OWNER: label_value(instance.owner),
        ALGORITHM: label_value(spec.algorithm.partition("/")[2]),
        INSTANCE: instance.id,
        NETWORK: instance.network,
        **({REGISTRY: instance.registry_id} if instance.registry_id else {}),
    }
