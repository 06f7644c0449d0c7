"""Check that no identifier and no module has a name that a standard term replaced (`dev/names.toml`).

`python -m dev.check_names [FOLDER …]`: prints each use with its place and the new name; ends with status 1 if there are
any. Identifiers are read from the syntax tree, so texts and comments do not count.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).with_name("names.toml")
FOLDERS = ("api", "benchmarks", "cli", "dev", "migrations", "shared", "tests", "workers")
EXEMPT = ("migrations/versions", "tests/acceptance/sources")
"""Migrations name what they rename; the sources are as strangers write them, also for other Pythons."""


@dataclass(frozen=True)
class Rule:
    """A name, or a pattern of names, that must not be used."""

    pattern: re.Pattern[str]
    new: str
    folders: tuple[str, ...] = ()
    """Where the rule holds; empty: everywhere."""
    exempt: tuple[str, ...] = ()
    strings: bool = False
    """Whether whole string literals count as well."""

    def applies_to(self, path: str) -> bool:
        """Return whether the rule holds in the file with this path below the root."""
        is_in_scope = not self.folders or any(path.startswith(f"{folder}/") for folder in self.folders)
        return is_in_scope and path not in self.exempt


@dataclass(frozen=True)
class Use:
    """A use of a name that must not be used."""

    place: str
    name: str
    new: str


def read_rules(table: Path = TABLE) -> list[Rule]:
    """Return the rules on identifiers."""
    document = tomllib.loads(table.read_text())
    rows = [*document["identifier"], *document["pattern"]]
    return [
        Rule(
            re.compile(row["old"] if isinstance(row["old"], str) else "|".join(map(re.escape, row["old"]))),
            row["new"],
            tuple(row.get("in", ())),
            tuple(row.get("except", ())),
            row.get("strings", False),
        )
        for row in rows
    ]


def identifiers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every identifier of a syntax tree with its line."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name, line
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, line
            case ast.keyword(arg=str(name)) | ast.alias(asname=str(name)):
                yield name, line
            case ast.ImportFrom(names=aliases):
                yield from ((alias.name, line) for alias in aliases)
            case _:
                pass


def strings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every string literal of a syntax tree with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, node.lineno


def check_file(path: Path, root: Path, rules: list[Rule]) -> Iterator[Use]:
    """Yield the uses in one file."""
    relative = path.relative_to(root).as_posix()
    tree = ast.parse(path.read_text())
    for rule in rules:
        if rule.applies_to(relative):
            found = [*identifiers(tree), *(strings(tree) if rule.strings else ())]
            yield from (
                Use(f"{relative}:{line}", name, rule.new) for name, line in found if rule.pattern.fullmatch(name)
            )


def check_tree(root: Path = ROOT, folders: tuple[str, ...] = FOLDERS, table: Path = TABLE) -> list[Use]:
    """Return every use of a replaced name below the folders, and every module with a replaced name."""
    rules = read_rules(table)
    uses: list[Use] = []
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            if not any(folder in path.as_posix() for folder in EXEMPT):
                uses += check_file(path, root, rules)
    for row in tomllib.loads(table.read_text())["module"]:
        existing = [old for old in row["old"] if (root / old).is_dir() or (root / f"{old}.py").is_file()]
        uses += [Use(old, old, row["new"]) for old in existing]
    return uses


def main() -> int:
    """Print the uses; the status for the shell."""
    uses = check_tree(folders=tuple(sys.argv[1:]) or FOLDERS)
    for use in uses:
        print(f"{use.place}: {use.name} was replaced by: {use.new}")
    print(f"{len(uses)} replaced names in use", file=sys.stderr)
    return 1 if uses else 0


if __name__ == "__main__":
    sys.exit(main())
