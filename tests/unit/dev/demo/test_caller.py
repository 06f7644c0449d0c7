"""The demo prints the commands that it runs, and no secrets."""

import shlex
from pathlib import Path

import pytest

from dev.demo.caller import Caller, StepFailedError
from dev.demo.screen import Screen


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    return Caller(Screen(), tmp_path)


def answering(*blocks: str) -> str:
    """A command that prints what `curl -i` would."""
    return "printf %s " + shlex.quote("".join(blocks))


def block(first: str, *headers: str) -> str:
    return "\r\n".join([first, *headers, "", ""])


def test_a_command_is_printed_as_it_is_and_run_by_the_shell(caller: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    caller.set_variable("WHO", "world")

    said = caller.run('echo "hello $WHO"')

    assert said == "hello world"
    assert '$ echo "hello $WHO"\n' in capsys.readouterr().out


def test_a_secret_is_shown_by_its_name(caller: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    caller.set_variable("KEY", "s3cret", secret=True)

    said = caller.run('echo "the key is $KEY"; echo "$KEY again" >&2')

    printed = capsys.readouterr().out
    assert said.splitlines() == ["the key is $KEY", "$KEY again"]
    assert "s3cret" not in printed


def test_a_learned_secret_is_never_printed(caller: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    command = answering(block("HTTP/1.1 200 OK"), '{"api_key": "s3cret", "id": "7"}')

    caller.curl(command, ["id", "api_key"], variables={"KEY": "api_key", "ID": "id"}, secrets={"KEY"})

    shown = capsys.readouterr().out.split("HTTP 200")[1]
    assert caller.variables == {"KEY": "s3cret", "ID": "7"}
    assert '"api_key": "$KEY"' in shown
    assert "s3cret" not in shown


def test_only_the_chosen_fields_of_an_answer_are_shown(caller: Caller, capsys: pytest.CaptureFixture[str]) -> None:
    command = answering(block("HTTP/1.1 200 OK"), '{"a": {"b": 1, "c": 2}, "d": 3}')

    answer = caller.curl(command, ["a.b"])

    assert '{\n     "a": {"b": 1}\n   }' in capsys.readouterr().out.split("HTTP 200")[1]
    assert answer.body == {"a": {"b": 1, "c": 2}, "d": 3}


def test_interim_responses_are_skipped(caller: Caller) -> None:
    command = answering(block("HTTP/1.1 100 Continue"), block("HTTP/1.1 204 No Content", "Location: /v1/jobs/1"))

    answer = caller.curl(command, status=204)

    assert (answer.status, answer.headers["location"], answer.body) == (204, "/v1/jobs/1", "")


def test_another_status_than_expected_fails_with_the_message(caller: Caller) -> None:
    caller.set_variable("KEY", "s3cret", secret=True)
    command = answering(block("HTTP/1.1 401 Unauthorized"), '{"error": {"message": "no key s3cret"}}')

    with pytest.raises(StepFailedError, match=r"status 401 instead of 200: .*no key \$KEY"):
        caller.curl(command)


def test_a_command_that_fails_says_why_without_secrets(caller: Caller) -> None:
    caller.set_variable("KEY", "s3cret", secret=True)

    with pytest.raises(StepFailedError, match=r"status 3: cannot use \$KEY"):
        caller.run('echo "cannot use $KEY" >&2; exit 3')
