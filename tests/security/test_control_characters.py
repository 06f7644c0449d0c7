"""Attacks with control characters in texts, on the operator's terminal and on lines of logs."""

import io
import json
import logging
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import structlog
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from sqlalchemy import Text, literal_column, select, type_coerce, update

from api import sse
from api.errors import ApiError, Code
from cli.common import echo, plain_cell, print_table
from cli.errors import CommandError
from cli.main import group
from cli.processes import Output
from shared.audit import Actor, record
from shared.db.engine import database
from shared.db.models import (
    AuditEvent,
    Base,
    Build,
    CallRequest,
    ImagePush,
    Instance,
    Job,
    Refresh,
    Registry,
    Webhook,
    WebhookDelivery,
    WorkerProcess,
)
from shared.db.models.base import PlainText
from shared.errors import ConflictError, ErrorClass, WorkError
from shared.git.errors import git_error
from shared.git.repository_url import RepositoryUrl
from shared.logging import configure_logs
from shared.net.errors import excerpt
from shared.refreshes import RefreshStep, write_steps
from shared.registries.circuit_breaker import pause
from shared.settings import Settings
from tests.environment import longshore_environment
from tests.git_service import make_algorithm
from tests.logs import restored_logs
from tests.rows import build_commit, compile_commit, end_badly, end_build, make_claim, make_registry, one_row, push
from workers.builds.build_log import append_log
from workers.builds.context import BuildLog
from workers.docker.errors import classify_message

HOSTILE = (
    "red \x1b[31m title \x1b]0;owned\x07 link \x1b]8;;https://evil.example\x1b\\here\x1b]8;;\x1b\\ clear \x9b2J\x1bc"
    " nul \x00 bell \x07 back \x08\x7f next\u2028line\x85 txt.\u202eexe zero\u200bwidth\ufeff \U000e0041 half \ud800"
    "\r\noverwritten\rmarkup [red]x[/red] :warning: end"
)
"""One of each kind; hypothesis finds the combinations."""
_CHARACTERS = st.one_of(st.sampled_from("\x1b[]0;31m\x07\x9b\x9d\u202e\r\n:"), st.characters())
TEXTS = st.one_of(st.just(HOSTILE), st.text(_CHARACTERS))
FORBIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_plain(text: str, allowed: str = "\n\t") -> bool:
    return not {unicodedata.category(character) for character in text if character not in allowed} & FORBIDDEN


@pytest.fixture
def _tables(tmp_path: Path) -> Iterator[None]:
    with longshore_environment(tmp_path):
        yield


@pytest.fixture
def _migrated(tmp_path: Path) -> Iterator[None]:
    with restored_logs(), longshore_environment(tmp_path, tables=False):
        assert CliRunner().invoke(group, ("migrate",)).exit_code == 0
        yield


def git_message(text: str) -> str:
    return git_error(f"fatal: early EOF {text}", RepositoryUrl.parse("https://git.example/a/b")).message


@pytest.mark.parametrize(
    "message",
    [
        lambda text: WorkError(ErrorClass.INVALID, text).message,
        lambda text: ConflictError(text).message,
        lambda text: ApiError(400, Code.INVALID_REQUEST, text).message,
        lambda text: classify_message(text).message,
        excerpt,
        git_message,
    ],
    ids=["work error", "request error", "response", "engine", "registry", "git server"],
)
@given(text=TEXTS)
def test_an_error_does_not_carry_escapes(message: Callable[[str], str], text: str) -> None:
    assert is_plain(message(text))


@given(text=TEXTS)
def test_a_build_does_not_write_escapes_into_its_log(text: str) -> None:
    lines: list[str] = []
    BuildLog(lines.append, 10**6)(text)
    assert is_plain("".join(lines))


def test_a_secret_is_masked_whatever_is_between_its_letters() -> None:
    lines: list[str] = []
    BuildLog(lines.append, 10**6, ["hunter2"])("hun\x1b[31mter2 hun\u200bter2")
    assert lines == ["**** ****"]
    assert excerpt("hun\x1b[31mter2 hun\u200bter2", ["hunter2"]) == "*** ***"


def stored_text(column: Any, row: Base) -> str:
    """Return the stored value of a column, without the conversion of its type."""
    table = type(row).__table__
    with database().reading() as session:
        raw = type_coerce(literal_column(f"{row.__tablename__}.{column.key}"), Text)
        return str(session.scalars(select(raw).select_from(table).where(table.c.seq == row.seq)).one())


@pytest.mark.usefixtures("_tables")
def test_no_column_of_messages_stores_escapes() -> None:
    """Also those that are written by an UPDATE with an expression."""
    registry, algorithm = make_registry(), make_algorithm("acme")
    claim = make_claim(compile_commit(algorithm).job)
    with database().writing() as session:
        append_log(session, claim, HOSTILE + "\n")
    end_build(claim)
    build = one_row(Build)
    job = push(build, registry)
    end_badly(make_claim(job), message=HOSTILE)
    with database().writing() as session:
        pause(session, session.scalars(select(Registry)).one(), HOSTILE)
        session.execute(update(Build).values(message=HOSTILE))
    for column, row in (
        (Job.error_message, one_row(Job, id=job.id)),
        (ImagePush.message, one_row(ImagePush, id=job.push_id)),
        (Registry.pause_reason, registry),
        (Build.log, build),
        (Build.message, build),
    ):
        text = stored_text(column, row)
        assert is_plain(text), (str(column), text)
        assert "ed  title  link here clear" in text, str(column)


def test_every_column_for_messages_is_plain() -> None:
    columns = (
        CallRequest.message,
        Job.error_message,
        ImagePush.message,
        Build.log,
        Build.message,
        Instance.message,
        Registry.pause_reason,
        Webhook.disabled_reason,
        WebhookDelivery.last_error,
        WorkerProcess.problem,
    )
    assert all(isinstance(column.type, PlainText) for column in columns)
    others = [
        f"{table.name}.{column.name}"
        for table in Base.metadata.sorted_tables
        for column in table.columns
        if any(word in column.name for word in ("message", "reason", "problem", "_error"))
        and not isinstance(column.type, PlainText)
    ]
    assert others == []


@pytest.mark.usefixtures("_tables")
def test_what_an_older_version_stored_is_shown_plain() -> None:
    build = build_commit(make_algorithm("acme"))
    with database().writing() as session:
        session.execute(update(Build).values(message=type_coerce("\x1b[31mred\u202e", Text)))
    assert "\x1b" in stored_text(Build.message, build)
    assert one_row(Build, id=build.id).message == "red"


@pytest.mark.usefixtures("_tables")
def test_the_audit_trail_has_no_escapes() -> None:
    with database().writing() as session:
        record(session, Actor(HOSTILE, address=HOSTILE), "denied", HOSTILE, path=HOSTILE, more={HOSTILE: [HOSTILE, 1]})
    entry = one_row(AuditEvent)
    for text in (entry.actor, entry.address or "", entry.target_id, str(entry.detail["path"]), *entry.detail["more"]):
        assert text
        assert is_plain(text, allowed="")
    assert all(is_plain(str(text), allowed="") for texts in entry.detail["more"].values() for text in texts)


@pytest.mark.usefixtures("_tables")
def test_the_steps_of_a_refresh_have_no_escapes() -> None:
    with database().writing() as session:
        session.add(Refresh(job_id="a", what="nodes", options={}))
        session.flush()
        write_steps(session, "a", [RefreshStep("node", step=HOSTILE)])
    assert is_plain(one_row(Refresh).progress[0]["step"], allowed="")


@pytest.mark.usefixtures("_migrated")
def test_the_command_prints_neither_escapes_nor_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows as an older version left them, names that callers chose, and a terminal that shows colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "400")
    make_registry("one.example.com", name="[red]twin")
    with database().writing() as session:
        pause(session, session.scalars(select(Registry)).one(), HOSTILE)
        session.execute(update(Registry).values(pause_reason=type_coerce(HOSTILE.replace("\ud800", ""), Text)))
    result = CliRunner().invoke(group, ("registries", "list"), prog_name="longshore", color=True)
    assert result.exit_code == 0, result.output
    shown = click.unstyle(result.output)  # the table's own colours
    assert "[red]twin" in shown
    assert "[red]x[/red] :warning:" in shown
    assert is_plain(shown)
    assert "\x1b]" not in result.output
    assert "\x1b[2J" not in result.output
    assert "\x9b" not in result.output


@given(text=TEXTS)
def test_markup_in_a_cell_is_shown_as_text(text: str) -> None:
    stream = io.StringIO()
    table = Table()
    table.add_column("x", no_wrap=True)
    table.add_row(plain_cell(text))
    Console(file=stream, width=2000, color_system=None).print(table)
    assert is_plain(stream.getvalue())


def test_markup_is_not_interpreted(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("x",), [("[red]a[/red] [link=https://evil.example]b[/link] :warning: \\",)])
    assert "[red]a[/red] [link=https://evil.example]b[/link] :warning: \\" in capsys.readouterr().out


@pytest.mark.parametrize(
    "show",
    [
        lambda: echo(HOSTILE),
        lambda: CommandError(HOSTILE).show(),
        lambda: Output(as_json=False, width=6).print_line("part", HOSTILE),
        lambda: Output(as_json=True, width=6).print_line("part", HOSTILE),
    ],
    ids=["echo", "error", "child", "child as JSON"],
)
def test_printed_text_is_plain(show: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    show()
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert "red" in shown
    assert is_plain(shown)


@pytest.fixture
def _logs() -> Iterator[None]:
    with restored_logs():
        yield


@pytest.mark.usefixtures("_logs")
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_text_in_the_log_neither_escapes_nor_begins_an_entry(log_format: str) -> None:
    stream = io.StringIO()
    configure_logs(Settings(log_format=log_format), process="test", stream=stream)
    structlog.get_logger("ours").info("refused", reason=HOSTILE, parts=[HOSTILE], fields={HOSTILE: HOSTILE})
    logging.getLogger("theirs").warning("they say %s", HOSTILE)
    logging.getLogger("theirs").warning(HOSTILE)
    entries = stream.getvalue().splitlines()
    assert len(entries) == 3
    assert all(is_plain(entry) for entry in entries)


@pytest.mark.usefixtures("_logs")
def test_a_traceback_in_the_log_does_not_escape() -> None:
    stream = io.StringIO()
    configure_logs(Settings(log_format="console"), process="test", stream=stream)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    assert "ValueError" in stream.getvalue()
    assert is_plain(stream.getvalue())


@given(text=TEXTS)
def test_a_text_in_an_event_stream_does_not_begin_an_event(text: str) -> None:
    sent = str(sse.Event("log", {"offset": 0, "text": text}, sse.StreamPosition()))
    assert sent.isascii()
    fields = dict(line.split(": ", 1) for line in sent.removesuffix("\n\n").split("\n"))
    assert set(fields) == {"id", "event", "data"}
    assert json.loads(fields["data"])["text"] == text
