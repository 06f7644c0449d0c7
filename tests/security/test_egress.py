"""Attacks of builds and algorithms on services of the machine, its network and its cloud."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import APIClient

from shared.jobs.queues import Queues
from shared.settings import settings
from tests.environment import longshore_environment
from tests.security.simulated_network import INTERNET, MACHINE, METADATA, PRIVATE, Machine, in_namespace, machine
from workers.confinement import confinement_warnings
from workers.docker.network import BRIDGES, egress_rules

DENIED = {MACHINE, PRIVATE, METADATA}
TOOLS = ("ip", "iptables", "iptables-restore", "nsenter", "unshare", "dockerd")
BUILDS, SERVING = BRIDGES
CAP_NET_ADMIN = 12
PR_CAPBSET_DROP = 24
WRITE_RULES = f"""
from workers.docker.network import confinement_problem
for name in {list(BRIDGES)}:
    print(confinement_problem(name), flush=True)
"""
GATEWAY = """
from workers.docker.connection import engine
print(engine().inspect_network({!r})["IPAM"]["Config"][0]["Gateway"])
"""

needs_a_firewall = pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(tool, path="/usr/bin:/bin:/usr/sbin:/sbin") for tool in TOOLS),
    reason=f"needs root and {', '.join(TOOLS)}",
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine on which Longshore made its networks."""
    directory = tmp_path_factory.mktemp("machine")
    environment = {**os.environ, "LONGSHORE_DATA_DIR": str(directory / "data")}
    with machine(Path("/var/tmp") / f"longshore-{directory.parent.name}-{directory.name}", environment) as made:
        assert made.python(WRITE_RULES).split() == ["None"] * len(BRIDGES)
        yield made


def gateway(here: Machine, network: str) -> str:
    return here.python(GATEWAY.format(network)).strip()


@needs_a_firewall
@pytest.mark.parametrize("network", [BUILDS, SERVING])
def test_a_container_reaches_the_internet_and_no_private_address(here: Machine, network: str) -> None:
    with here.listening_container(network) as neighbour:
        addresses = [INTERNET, *DENIED, gateway(here, network), neighbour]
        assert here.reached(network, addresses) == {INTERNET}


@needs_a_firewall
def test_a_container_on_a_plain_network_reaches_private_addresses(here: Machine) -> None:
    client = APIClient(base_url=here.docker_host)
    client.create_network("plain", driver="bridge")
    with here.listening_container("plain") as neighbour:
        assert here.reached("plain", [INTERNET, *DENIED, neighbour]) == {INTERNET, *DENIED, neighbour}
    client.remove_network("plain")
    client.close()


@needs_a_firewall
def test_a_private_network_that_the_operator_allows_is_reached_and_nothing_more(here: Machine) -> None:
    here.python(WRITE_RULES, LONGSHORE_EGRESS_NETWORKS="10.9.0.0/24,203.0.113.0/24,169.254.0.0/16")
    assert here.reached(SERVING, [INTERNET, *DENIED]) == {INTERNET, PRIVATE}
    here.python(WRITE_RULES)
    assert here.reached(SERVING, [INTERNET, *DENIED]) == {INTERNET}


@needs_a_firewall
def test_rules_that_a_firewall_dropped_are_written_again(here: Machine) -> None:
    here.run("iptables", "-t", "mangle", "-F", "PREROUTING")
    assert here.reached(SERVING, [INTERNET, PRIVATE]) == {INTERNET, PRIVATE}
    here.python(f"from workers.docker.network import ensure_network; ensure_network({SERVING!r})")
    assert here.reached(SERVING, [INTERNET, PRIVATE]) == {INTERNET}


@needs_a_firewall
def test_the_command_firewall_keeps_the_rules_for_workers_that_cannot_write_them(here: Machine) -> None:
    here.run("iptables", "-t", "mangle", "-F", "PREROUTING")
    with subprocess.Popen(
        [*in_namespace(here.namespace), sys.executable, "-m", "cli.main", "firewall"],
        env={**here.environment, "DOCKER_HOST": here.docker_host},
        stderr=subprocess.PIPE,
        text=True,
    ) as keeper:
        assert keeper.stderr is not None
        while "firewall_rules_in_force" not in keeper.stderr.readline():
            assert keeper.poll() is None
        assert here.reached(SERVING, [INTERNET, *DENIED]) == {INTERNET}
        keeper.terminate()
    printed = here.python(WRITE_RULES, LONGSHORE_EGRESS_RULES="elsewhere")
    assert printed.split() == ["None"] * len(BRIDGES)


def drop_the_right_to_rule() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0)


@needs_a_firewall
def test_a_worker_without_the_right_says_that_nothing_is_denied(here: Machine) -> None:
    done = subprocess.run(
        [*in_namespace(here.namespace), sys.executable, "-c", WRITE_RULES],
        env={**here.environment, "DOCKER_HOST": here.docker_host},
        preexec_fn=drop_the_right_to_rule,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("can reach this machine and private networks") == len(BRIDGES)
    assert "Permission denied" in done.stdout


@needs_a_firewall
def test_a_worker_in_another_network_namespace_says_that_nothing_is_denied(here: Machine) -> None:
    """As in a container of its own, which has the engine's socket and another network.

    Not in this process's namespace, where engines of other tests have networks of the same names.
    """
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", WRITE_RULES],
        env={**here.environment, "DOCKER_HOST": here.docker_host},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("another network namespace") == len(BRIDGES)


def test_name_servers_are_reached_for_names_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("search example\nnameserver 10.0.0.2\nnameserver 127.0.0.53\nnameserver fe80::1\nnameserver\n")
    monkeypatch.setattr("workers.docker.network.RESOLVER_FILE", resolver)
    with longshore_environment(tmp_path, tables=False, egress_networks="10.1.0.0/16"):
        rules = egress_rules()
    assert [rule for rule in rules if "ACCEPT" in rule] == [
        "-d 10.0.0.2/32 -p udp --dport 53 -j ACCEPT",
        "-d 10.0.0.2/32 -p tcp --dport 53 -j ACCEPT",
        "-d 10.1.0.0/16 -j ACCEPT",
    ]
    machine_itself = rules.index("-m addrtype ! --dst-type UNICAST -j DROP")
    metadata = rules.index("-d 169.254.0.0/16 -j DROP")
    assert machine_itself < metadata < rules.index("-d 10.1.0.0/16 -j ACCEPT") < rules.index("-d 10.0.0.0/8 -j DROP")


def test_by_default_both_networks_are_longshores_own(tmp_path: Path) -> None:
    with longshore_environment(tmp_path, tables=False):
        assert {settings().build_network, settings().serving_network} == set(BRIDGES)


@pytest.mark.engine
def test_a_worker_that_confines_less_than_it_could_says_so_at_its_start(
    docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    with longshore_environment(
        tmp_path, tables=False, build_network="host", serving_network="theirs", serving_sockets="disk"
    ):
        builds, serving, sockets = confinement_warnings(Queues.ALL)
        assert confinement_warnings([Queues.PUSHES]) == []
    assert builds.startswith("LONGSHORE_BUILD_NETWORK=host")
    assert serving.startswith("LONGSHORE_SERVING_NETWORK=theirs")
    assert sockets.startswith("LONGSHORE_SERVING_SOCKETS=disk")
