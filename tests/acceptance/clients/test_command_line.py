"""The command `algo` of the published client in each version that has it, behind TLS under the names that it wants.

It takes addresses that begin with `https://api.` alone, and clones from the same name with `git.` in place of `api.`.
"""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.clients.deployment import SOURCE, Deployment, deploy
from tests.acceptance.clients.tls import API_HOST, PublicNames
from tests.acceptance.system import System
from tests.clients import COMMAND_LINES, published_client_python

OWNER = "command_line"
ALGORITHM = f"{OWNER}/Deployed"


@dataclass(frozen=True)
class Algo:
    """The command, with a home directory of its own."""

    version: str
    home: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str, typed: str = "") -> str:
        """Run it in its home directory; return what it printed."""
        done = self.run(*arguments, typed=typed)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [published_client_python(self.version).with_name("algo"), *arguments],
            cwd=self.home,
            env=self.environment,
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="module")
def deployed(system: System, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """An algorithm to use: the command itself deploys none."""
    return deploy(system, OWNER, tmp_path_factory.mktemp("deploy"))


@pytest.fixture(params=COMMAND_LINES)
def algo(request: pytest.FixtureRequest, tmp_path: Path, names: PublicNames, deployed: Deployment) -> Algo:
    """The command of one version, with a profile that `algo auth` wrote."""
    key = deployed.environment["API_KEY"]
    ask = tmp_path / "ask-password"
    ask.write_text(f'#!/bin/sh\ncase "$1" in Username*) echo {OWNER};; *) echo {key};; esac\n')
    ask.chmod(0o700)
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "HOME": str(home),
        "PATH": f"{published_client_python(request.param).parent}:{os.environ['PATH']}",
        "HTTPS_PROXY": names.proxy_url,
        "REQUESTS_CA_BUNDLE": str(names.authority),
        "GIT_SSL_CAINFO": str(names.authority),
        "GIT_ASKPASS": str(ask),
    }
    made = Algo(str(request.param), home, environment)
    printed = made("auth", typed=f"https://{API_HOST}\n{key}\n{names.authority}\n")
    assert "Configuring authentication for profile: default" in printed
    assert "invalid" not in printed
    return made


def test_auth_writes_a_profile_and_reads_the_listing_of_data(algo: Algo, deployed: Deployment) -> None:
    profile = (algo.home / ".algorithmia" / "config").read_text()
    assert f'api_key = "{deployed.environment["API_KEY"]}"' in profile
    assert f'api_server = "https://{API_HOST}"' in profile
    assert algo("ls").strip() == ""


def test_auth_with_a_key_that_is_unknown_fails(algo: Algo, names: PublicNames) -> None:
    unknown = "sim" + 25 * "x"
    refused = algo.run("auth", typed=f"https://{API_HOST}\n{unknown}\n{names.authority}\n")
    assert refused.returncode != 0
    assert "2002" in refused.stderr


def test_run_sends_every_form_of_input(algo: Algo) -> None:
    (algo.home / "input.txt").write_text("from a file")
    (algo.home / "input.bin").write_bytes(b"\x00\xff")
    assert algo("run", ALGORITHM, "-d", "typed").strip() == "typed"
    assert algo("run", ALGORITHM, "-t", "text").strip() == "text"
    assert algo("run", ALGORITHM, "-j", '{"a": [1, null]}').strip() == str({"echo": {"a": [1, None]}})
    assert algo("run", ALGORITHM, "-D", "input.txt").strip() == "from a file"
    assert algo("run", ALGORITHM, "-T", "input.txt").strip() == "from a file"
    assert algo("run", f"{ALGORITHM}/0.1.0", "-t", "text", "--timeout", "60", "--debug").strip() == "text"
    algo("run", ALGORITHM, "-t", "to a file", "-o", "output.txt")
    assert (algo.home / "output.txt").read_text() == "to a file"
    if algo.version != "1.13.1":  # reads the file into another variable than it sends
        assert algo("run", ALGORITHM, "-B", "input.bin").strip() == str(b"\x00\xff")


def test_builds_lists_the_builds(algo: Algo, deployed: Deployment) -> None:
    builds = json.loads(algo("builds", OWNER, "Deployed"))
    assert [(build["commit_sha"], build["status"]) for build in builds] == [(deployed.output["commit"], "succeeded")]


def test_clone_takes_the_name_with_git_in_front(algo: Algo, deployed: Deployment) -> None:
    assert "failed to clone" not in algo("clone", ALGORITHM)
    assert (algo.home / "Deployed" / "src" / "Deployed.py").read_text() == SOURCE
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=algo.home / "Deployed", text=True)
    assert head.strip() == deployed.output["commit"]


def test_languages_environments_and_templates(algo: Algo) -> None:
    languages = [line.split()[0] for line in algo("languages").splitlines()[1:]]
    assert "python3" in languages
    environments = json.loads(algo("environment", "python3"))
    assert environments
    assert all(environment["id"] and environment["display_name"] for environment in environments)
    algo("template", environments[0]["id"], "template")
    assert (algo.home / "template" / "requirements.txt").is_file()
    assert list((algo.home / "template" / "src").glob("*.py"))


def test_what_fails_in_the_client_itself(algo: Algo) -> None:
    """Keep docs/compatibility.md true."""
    (algo.home / "input.json").write_text('{"a": 1}')
    (algo.home / "input.bin").write_bytes(b"\x00\xff")
    assert "TypeError: string argument without an encoding" in algo.run("run", ALGORITHM, "-b", "text").stderr
    assert algo("run", ALGORITHM, "-J", "input.json").strip() == '{"a": 1}'  # sent as a text, not as an object
    answer = algo("run", ALGORITHM, "-j", '{"a": 1}', "-o", "output.json")
    assert "write() argument must be str" in answer
    if algo.version == "1.13.1":
        assert algo("run", ALGORITHM, "-B", "input.bin").strip() != str(b"\x00\xff")
    algo.environment.pop("REQUESTS_CA_BUNDLE")
    assert "CERTIFICATE_VERIFY_FAILED" in algo.run("run", ALGORITHM, "-t", "text").stderr  # not the profile's authority
