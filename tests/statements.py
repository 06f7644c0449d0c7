"""Record the statements that the code sends to the database, and read how the database executes them."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event

from shared.db.engine import Database

EXPLAINED = ("SELECT", "WITH", "UPDATE", "DELETE")
SCAN = re.compile(r"^SCAN (\w+?)(?:_\d+)?(?: USING (?:COVERING )?INDEX (\w+))?$")


@dataclass(frozen=True)
class Statement:
    """A statement as it was sent to the database."""

    text: str
    parameters: Any


@contextmanager
def recorded_statements(database: Database) -> Iterator[list[Statement]]:
    """Yield a list that collects the statements sent during the block, without BEGIN."""
    statements: list[Statement] = []

    def record(_connection: Any, _cursor: Any, text: str, parameters: Any, _context: Any, _many: bool) -> None:
        if not text.startswith("BEGIN"):
            statements.append(Statement(text, parameters))

    event.listen(database.engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(database.engine, "before_cursor_execute", record)


def rows_read(database: Database, statement: Statement) -> int:
    """Return the number of table rows that PostgreSQL read for a statement, including those that a filter removed."""
    if not statement.text.lstrip().upper().startswith(EXPLAINED):
        return 0
    with database.writing() as session:
        connection = session.connection()
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.text}"
        plan = connection.exec_driver_sql(explain, statement.parameters).scalar_one()
        session.rollback()
    return _rows(plan if isinstance(plan, dict) else plan[0]["Plan"])


def _rows(node: dict[str, Any]) -> int:
    below = sum(_rows(each) for each in node.get("Plans", []))
    if "Relation Name" not in node or node["Node Type"] == "ModifyTable":
        return below
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return below + int((node["Actual Rows"] + removed) * node["Actual Loops"])


def whole_scans(database: Database, statement: Statement) -> set[str]:
    """Return the tables and indexes that SQLite scans completely."""
    if not statement.text.lstrip().upper().startswith(EXPLAINED):
        return set()
    with database.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement.text}", statement.parameters).all()
    scans = [SCAN.match(row[-1]) for row in rows]
    return {scan[2] or scan[1] for scan in scans if scan}


def describe(statement: Statement) -> str:
    """Return the statement with its parameters, for the message of a failed test."""
    return f"{statement.text}\n{json.dumps(statement.parameters, default=str)}"
