"""Build the Kubernetes objects of a version: its Deployment, its Service, and the network policy."""

from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import Any

from kubernetes.client import (
    V1Capabilities,
    V1Container,
    V1ContainerPort,
    V1Deployment,
    V1DeploymentSpec,
    V1DeploymentStrategy,
    V1EmptyDirVolumeSource,
    V1EnvVar,
    V1HTTPGetAction,
    V1IPBlock,
    V1LabelSelector,
    V1LabelSelectorRequirement,
    V1LocalObjectReference,
    V1NetworkPolicy,
    V1NetworkPolicyEgressRule,
    V1NetworkPolicyPeer,
    V1NetworkPolicyPort,
    V1NetworkPolicySpec,
    V1ObjectMeta,
    V1PodSecurityContext,
    V1PodSpec,
    V1PodTemplateSpec,
    V1Probe,
    V1ResourceRequirements,
    V1RollingUpdateDeployment,
    V1SeccompProfile,
    V1SecurityContext,
    V1Service,
    V1ServicePort,
    V1ServiceSpec,
    V1Volume,
    V1VolumeMount,
)

from shared.net.address_rules import FORBIDDEN_NETWORKS, PRIVATE_NETWORKS, Network
from shared.settings.serving import ServingSettings
from workers.runner import PORT, RUNS_AS
from workers.serving.backend import InstanceSpec
from workers.serving.kubernetes.labels import (
    GIT_HASH,
    NETWORK,
    PATH,
    STARTED,
    common_labels,
    instance_labels,
    pull_secret_name,
    version_labels,
    version_name,
)

TERMINATION_GRACE_SECONDS = 30
"""More than the 10 s that the runner gives the calls in progress when it is asked to end, so that none is cut off."""
ISOLATED_POLICY = "longshore-isolated"
EGRESS_POLICY = "longshore-egress"
DNS_PORT = 53
NODE_LOCAL_DNS = "169.254.20.10/32"
"""The address of the DNS cache on each node, if there is one (Kubernetes, "NodeLocal DNSCache")."""


def deployment_of(spec: InstanceSpec, settings: ServingSettings, start_id: str) -> V1Deployment:
    """Return the Deployment that runs the image; applying one for another image of the version is a rolling update."""
    instance = spec.instance
    labels = instance_labels(spec)
    about = {PATH: spec.algorithm, GIT_HASH: spec.git_hash}
    return V1Deployment(
        api_version="apps/v1",
        kind="Deployment",
        metadata=V1ObjectMeta(
            name=version_name(instance.version_id), labels=labels, annotations={**about, STARTED: start_id}
        ),
        spec=V1DeploymentSpec(
            replicas=1,
            revision_history_limit=0,
            selector=V1LabelSelector(match_labels=version_labels(instance)),
            strategy=V1DeploymentStrategy(
                type="RollingUpdate", rolling_update=V1RollingUpdateDeployment(max_surge=1, max_unavailable=0)
            ),
            template=V1PodTemplateSpec(
                metadata=V1ObjectMeta(labels=labels, annotations=about), spec=_pod(spec, settings)
            ),
        ),
    )


def service_of(spec: InstanceSpec) -> V1Service:
    instance = spec.instance
    return V1Service(
        api_version="v1",
        kind="Service",
        metadata=V1ObjectMeta(name=version_name(instance.version_id), labels=version_labels(instance)),
        spec=V1ServiceSpec(
            type="ClusterIP",
            selector=version_labels(instance),
            ports=[V1ServicePort(name="http", port=PORT, target_port=PORT, protocol="TCP")],
        ),
    )


def isolated_policy() -> V1NetworkPolicy:
    """Return the one policy that forbids isolated algorithms all connections; the cluster's network must enforce it."""
    return V1NetworkPolicy(
        api_version="networking.k8s.io/v1",
        kind="NetworkPolicy",
        metadata=V1ObjectMeta(name=ISOLATED_POLICY, labels=common_labels("isolation")),
        spec=V1NetworkPolicySpec(
            pod_selector=V1LabelSelector(match_labels={**common_labels("runner"), NETWORK: "isolated"}),
            policy_types=["Egress"],
        ),
    )


def egress_policy(settings: ServingSettings, api_addresses: Sequence[str]) -> V1NetworkPolicy:
    """Return the policy for all other algorithms: they reach the cluster's DNS and the public internet only.

    `api_addresses` are those of the cluster's API, which may be outside of private networks.
    """
    forbidden = [network for network, _ in FORBIDDEN_NETWORKS]
    excluded = [*forbidden, *PRIVATE_NETWORKS, *map(ip_network, api_addresses)]
    internet = [_peer(ip_network(everything), excluded) for everything in ("0.0.0.0/0", "::/0")]
    allowed = [
        _peer(network, forbidden)
        for network in map(ip_network, settings.egress_networks)
        if not any(_contains(one, network) for one in forbidden)
    ]
    dns = V1NetworkPolicyPeer(
        namespace_selector=V1LabelSelector(match_labels={"kubernetes.io/metadata.name": "kube-system"}),
        pod_selector=V1LabelSelector(match_labels={"k8s-app": "kube-dns"}),
    )
    return V1NetworkPolicy(
        api_version="networking.k8s.io/v1",
        kind="NetworkPolicy",
        metadata=V1ObjectMeta(name=EGRESS_POLICY, labels=common_labels("isolation")),
        spec=V1NetworkPolicySpec(
            pod_selector=V1LabelSelector(
                match_labels=common_labels("runner"),
                match_expressions=[
                    V1LabelSelectorRequirement(key=NETWORK, operator="NotIn", values=["isolated"]),
                ],
            ),
            policy_types=["Egress"],
            egress=[
                V1NetworkPolicyEgressRule(
                    to=[dns, V1NetworkPolicyPeer(ip_block=V1IPBlock(cidr=NODE_LOCAL_DNS))],
                    ports=[V1NetworkPolicyPort(port=DNS_PORT, protocol=protocol) for protocol in ("UDP", "TCP")],
                ),
                V1NetworkPolicyEgressRule(to=[*internet, *allowed]),
            ],
        ),
    )


def _peer(network: Network, excepted: Iterable[Network]) -> V1NetworkPolicyPeer:
    inside = sorted({str(one) for one in excepted if one != network and _contains(network, one)})
    # The name of the field is a keyword of Python.
    block: dict[str, Any] = {"cidr": str(network), **({"except": inside} if inside else {})}
    return V1NetworkPolicyPeer(ip_block=V1IPBlock(**block))


def _contains(outer: Network, inner: Network) -> bool:
    return inner.network_address in outer and inner.prefixlen >= outer.prefixlen


def _pod(spec: InstanceSpec, settings: ServingSettings) -> V1PodSpec:
    registry_id = spec.instance.registry_id
    return V1PodSpec(
        node_selector=settings.kubernetes_node_labels or None,
        image_pull_secrets=[V1LocalObjectReference(name=pull_secret_name(registry_id))]
        if spec.credentials is not None and registry_id is not None
        else None,
        automount_service_account_token=False,
        enable_service_links=False,
        termination_grace_period_seconds=TERMINATION_GRACE_SECONDS,
        security_context=V1PodSecurityContext(
            run_as_non_root=True,
            run_as_user=RUNS_AS,
            run_as_group=RUNS_AS,
            seccomp_profile=V1SeccompProfile(type="RuntimeDefault"),
        ),
        containers=[_container(spec, settings)],
        # In memory, as on Docker: it counts against the memory limit, and when it is full, the write fails. For a
        # directory on disk the limit is only checked now and then, and the whole pod is evicted.
        volumes=[
            V1Volume(
                name="tmp",
                empty_dir=V1EmptyDirVolumeSource(medium="Memory", size_limit=str(settings.serving_tmp_bytes)),
            )
        ],
    )


def _container(spec: InstanceSpec, settings: ServingSettings) -> V1Container:
    resources = {"cpu": f"{round(settings.serving_cpus * 1000)}m", "memory": str(settings.serving_memory_bytes)}
    return V1Container(
        name="algorithm",
        image=spec.instance.image,
        image_pull_policy="Always",
        env=[V1EnvVar(name="LONGSHORE_MAX_REQUEST_BYTES", value=str(settings.call_max_bytes))],
        ports=[V1ContainerPort(name="http", container_port=PORT, protocol="TCP")],
        readiness_probe=V1Probe(
            http_get=V1HTTPGetAction(path="/healthz", port=PORT), period_seconds=1, timeout_seconds=5
        ),
        resources=V1ResourceRequirements(requests=resources, limits=dict(resources)),
        security_context=V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=V1Capabilities(drop=["ALL"]),
        ),
        volume_mounts=[V1VolumeMount(name="tmp", mount_path="/tmp")],  # noqa: S108 - the pod's own
    )
