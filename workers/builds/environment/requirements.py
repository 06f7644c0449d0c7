"""What a `requirements.txt` asks for, read as pip reads it (pip documentation, "Requirements File Format")."""

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from shared.errors import ErrorClass, WorkError
from workers.builds.assembly.source_tree import SourceTree

FILE = "requirements.txt"
MAX_BYTES = 1024 * 1024
MAX_FILES = 32

_VALUED = {
    "-i": "--index-url",
    "-f": "--find-links",
    "-r": "--requirement",
    "-c": "--constraint",
    "-e": "--editable",
    **{
        name: name
        for name in (
            "--index-url", "--extra-index-url", "--find-links", "--requirement", "--constraint", "--editable",
            "--no-binary", "--only-binary", "--trusted-host", "--use-feature",
        )
    },
}  # fmt: skip
_FLAGS = {"--no-index", "--prefer-binary", "--require-hashes", "--pre"}
_VCS = re.compile(r"(git|hg|svn|bzr)\+", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.(whl|zip|tar\.gz|tgz|tar\.bz2|tar\.xz|tar)$", re.IGNORECASE)
_COMMENT = re.compile(r"(^|\s+)#.*$")
_VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")
_EGG = re.compile(r"[#&]egg=([A-Za-z0-9._-]+)")


class RequirementKind(StrEnum):
    """Where a requirement comes from."""

    HOSTED = "hosted"
    """A package index, or an archive at a URL."""
    LOCAL = "local"
    """The source itself (`.`, `./pkg`, `file:`)."""
    VCS = "vcs"
    """A repository (`git+https://…`)."""
    OPTION = "option"
    """No requirement, but an option that changes how the others are found."""


@dataclass(frozen=True)
class RequirementLine:
    """One logical line: what it says, where it stands (file, and the number of its first line, from 1)."""

    kind: RequirementKind
    text: str
    file: str
    number: int
    name: str | None = None
    hashed: bool = False
    constraint: bool = False


@dataclass(frozen=True)
class Requirements:
    """The lines of `requirements.txt` and of the files that it includes, and those files' contents by path."""

    lines: tuple[RequirementLine, ...]
    files: Mapping[str, bytes]

    @property
    def shareable(self) -> bool:
        """Whether they say all that is installed: nothing comes from the source or from a repository."""
        return not any(line.kind in {RequirementKind.LOCAL, RequirementKind.VCS} for line in self.lines)

    @property
    def pinned_by_hash(self) -> bool:
        """Whether every requirement names the hash of what it allows, so that no owner's differ from another's."""
        return all(
            line.hashed for line in self.lines if line.kind is not RequirementKind.OPTION and not line.constraint
        )

    def fingerprint(self) -> list[str]:
        """What makes two of them equal; comments and blank lines do not matter."""
        return [("constraint " if line.constraint else "") + line.text for line in self.lines]

    def place_of(self, name: str) -> str | None:
        """Where the distribution is named, as "requirements.txt line 3", or None."""
        wanted = canonicalize_name(name)
        for line in self.lines:
            if line.name == wanted:
                return place(line.file, line.number)
        return None

    def place_of_text(self, text: str) -> str | None:
        """The first line that has `text` in it (a path, a URL), or None."""
        return next((place(line.file, line.number) for line in self.lines if text in line.text), None)


NO_REQUIREMENTS = Requirements((), {})


def place(file: str, number: int) -> str:
    """How a line is named to a caller."""
    return f"{file} line {number}"


def read_requirements(tree: SourceTree) -> Requirements:
    """Read `requirements.txt` of a source, with all that it includes; a source without one requires nothing.

    Raises:
        WorkError: the file is no regular file, too large or no UTF-8, or a line of it cannot be read (invalid).
    """
    if not tree.exists(FILE):
        return NO_REQUIREMENTS
    reader = _Reader(tree)
    reader.read_file(FILE, FILE, constraint=False)
    return Requirements(tuple(reader.lines), reader.files)


class _Reader:
    def __init__(self, tree: SourceTree) -> None:
        self._tree = tree
        self.lines: list[RequirementLine] = []
        self.files: dict[str, bytes] = {}

    def read_file(self, path: str, named_at: str, *, constraint: bool) -> None:
        if not self._tree.is_file(path):
            raise _invalid(named_at, f"{path} is no regular file of the source")
        if self._tree.size(path) > MAX_BYTES:
            raise _invalid(named_at, f"{path} is larger than {MAX_BYTES} bytes")
        if path in self.files:
            return  # Included twice, or includes itself: its lines are here already.
        if len(self.files) == MAX_FILES:
            raise _invalid(named_at, f"more than {MAX_FILES} files are included")
        content = self._tree.read(path)
        self.files[path] = content
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise _invalid(named_at, f"{path} is not UTF-8 text (byte {error.start})") from None
        for number, line in _logical_lines(text):
            self._read_line(line, path, number, constraint=constraint)

    def _read_line(self, text: str, path: str, number: int, *, constraint: bool) -> None:
        at = place(path, number)
        if _VARIABLE.search(text):
            raise _invalid(at, "a build has no environment variables to put in")
        if text.startswith("-"):
            for option, value in _options(text, at):
                if option in {"--requirement", "--constraint"} and value:
                    self._include(option, value, path, at, constraint=constraint)
                else:
                    self.lines.append(_option_line(option, value, path, number))
        else:
            self.lines.append(_requirement_line(text, path, number, constraint=constraint))

    def _include(self, option: str, value: str, path: str, at: str, *, constraint: bool) -> None:
        if "://" in value or value.startswith("file:"):
            raise _invalid(at, f"{option} can only name a file of the source")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), value))
        if target.startswith(("/", "../")) or target in {"..", "."}:
            raise _invalid(at, f"{option} names a file outside of the source")
        self.read_file(target, at, constraint=constraint or option == "--constraint")


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, joined where a backslash ends one; each with the number of its first."""
    parts: list[str] = []
    first = 0
    for number, physical in enumerate([*text.splitlines(), ""], start=1):
        is_comment = physical.lstrip().startswith("#")
        if not parts:
            first = number
        if physical.endswith("\\") and not is_comment:
            parts.append(physical[:-1])
            continue
        # A comment line ends a continued line, and is no part of it.
        parts.append("" if is_comment else physical)
        whole = _COMMENT.sub("", "".join(parts)).strip()
        parts = []
        if whole:
            yield first, whole


def _options(text: str, at: str) -> Iterator[tuple[str, str | None]]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise _invalid(at, f"{text!r} cannot be read: {error}") from None
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word in _FLAGS:
            yield word, None
        elif name in _VALUED and name.startswith("--") and equals:
            yield _VALUED[name], value
        elif word in _VALUED and words:
            yield _VALUED[word], words.pop(0)
        elif word[:2] in _VALUED and not word.startswith("--") and len(word) > 2:
            yield _VALUED[word[:2]], word[2:].removeprefix("=")
        else:
            raise _invalid(at, f"{word!r} is no option that a requirements file can have here")


def _option_line(option: str, value: str | None, path: str, number: int) -> RequirementLine:
    text = option if value is None else f"{option} {value}"
    if option == "--editable" and value:
        kind = RequirementKind.VCS if _VCS.match(value) else RequirementKind.LOCAL
        return RequirementLine(kind, text, path, number, _name_in_url(value))
    if option == "--find-links" and value and not re.match(r"https?://", value):
        return RequirementLine(RequirementKind.LOCAL, text, path, number)
    return RequirementLine(RequirementKind.OPTION, text, path, number)


def _requirement_line(text: str, path: str, number: int, *, constraint: bool) -> RequirementLine:
    at = place(path, number)
    wanted, options = _without_options(text)
    hashed = "--hash" in options
    if _ARCHIVE.search(wanted) and "://" not in wanted:
        # Such a name would be a valid requirement too; pip takes it for a file.
        return RequirementLine(RequirementKind.LOCAL, text, path, number, None, hashed, constraint)
    try:
        requirement = Requirement(wanted)
    except InvalidRequirement as error:
        kind = _kind_of_location(wanted)
        if kind is None:
            why = str(error).splitlines()[0]
            raise _invalid(at, f"{text[:200]!r} cannot be read: {why}") from None
        return RequirementLine(kind, text, path, number, _name_in_url(wanted), hashed, constraint)
    kind = RequirementKind.HOSTED
    if requirement.url:
        kind = _kind_of_location(requirement.url) or RequirementKind.LOCAL
    return RequirementLine(kind, text, path, number, canonicalize_name(requirement.name), hashed, constraint)


def _without_options(text: str) -> tuple[str, str]:
    """The requirement itself, and the options behind it."""
    words = text.split(" ")
    cut = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    return " ".join(words[:cut]).strip(), " ".join(words[cut:])


def _kind_of_location(location: str) -> RequirementKind | None:
    if _VCS.match(location):
        return RequirementKind.VCS
    if re.match(r"https?://", location, re.IGNORECASE):
        return RequirementKind.HOSTED
    bare = re.sub(r"(\[[^\]]*\])?(\s*;.*)?$", "", location)
    looks_like_path = bare.startswith((".", "/", "file:")) or ("/" in bare and " " not in bare)
    return RequirementKind.LOCAL if looks_like_path else None


def _name_in_url(location: str) -> str | None:
    egg = _EGG.search(location)
    return canonicalize_name(egg.group(1)) if egg else None


def _invalid(at: str, why: str) -> WorkError:
    return WorkError(ErrorClass.INVALID, f"{at}: {why}")
