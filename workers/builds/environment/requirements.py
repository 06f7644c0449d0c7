"""Read a `requirements.txt` as pip does (pip documentation, "Requirements File Format")."""

import codecs
import posixpath
import re
import shlex
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from shared.errors import ErrorClass, WorkError
from workers.builds.source_tree import SourceTree

FILE = "requirements.txt"
MAX_BYTES = 1024 * 1024
MAX_FILES = 32
MAX_LINE_LENGTH = 32 * 1024
"""Characters of a line with its continuations; one with 300 hashes is shorter."""

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
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*$")
r"""Not pip's own `(^|\s+)#.*$`, which takes hours for a megabyte of spaces."""
_VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"(?:===?|!=|~=|<=?|>=?) *[^ ,;()/\\@]+"
_LEGACY = re.compile(rf"({_NAME}) *(?:\[[A-Za-z0-9._, -]*\])? *\(?{_VERSION}(?: *, *{_VERSION})*\)? *(?:;.*)?")
"""Versions such as `>=1.16.*` or `==2004d`, which pip took until 24.0: whether it still does is for pip to say."""
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CODING = re.compile(rb"coding[:=]\s*([-\w.]+)")
_ENCODINGS = re.compile(
    r"utf-?8|(?:us-)?ascii|latin-?1|iso-?8859-[0-9]+|(?:cp|windows-?)[0-9]+|koi8-[ru]|gbk|gb2312|gb18030|big5|shift-jis|"
    r"euc-(?:jp|kr)"
)
"""Others are read as UTF-8: decoding a megabyte of punycode takes hours."""
_EGG = re.compile(r"[#&]egg=([A-Za-z0-9._-]+)")


class RequirementKind(StrEnum):
    """The source of a requirement.

    HOSTED: a package index, or an archive at a URL. LOCAL: the algorithm's source itself (`.`, `./pkg`, `file:`). VCS:
    a repository (`git+https://…`). OPTION: not a requirement, but an option that changes how the others are found.
    """

    HOSTED = "hosted"
    LOCAL = "local"
    VCS = "vcs"
    OPTION = "option"


@dataclass(frozen=True)
class RequirementLine:
    """One logical line, with its file and the number of its first physical line, from 1."""

    kind: RequirementKind
    text: str
    file: str
    number: int
    name: str | None = None
    constraint: bool = False


@dataclass(frozen=True)
class Requirements:
    """The lines of `requirements.txt` and of the files that it includes, and the contents of the files by path."""

    lines: tuple[RequirementLine, ...]
    files: Mapping[str, bytes]

    @property
    def shareable(self) -> bool:
        """Whether equal requirements install the same: nothing comes from the source or from a repository."""
        return not any(line.kind in {RequirementKind.LOCAL, RequirementKind.VCS} for line in self.lines)

    def fingerprint(self) -> list[str]:
        """Return the text by which two are equal, without comments and blank lines."""
        return [("constraint " if line.constraint else "") + line.text for line in self.lines]

    def line_of_distribution(self, name: str) -> str | None:
        """Return the first line that names the distribution, as "requirements.txt line 3"."""
        canonical = canonicalize_name(name)
        return next((describe_line(line.file, line.number) for line in self.lines if line.name == canonical), None)

    def line_with(self, text: str) -> str | None:
        return next((describe_line(line.file, line.number) for line in self.lines if text in line.text), None)


NO_REQUIREMENTS = Requirements((), {})


def describe_line(file: str, number: int) -> str:
    return f"{file} line {number}"


def read_requirements(tree: SourceTree, kit_requirement: str = "") -> Requirements:
    """Read `requirements.txt` of a source, with the files that it includes; without one there are no requirements.

    A file that asks for nothing, or for the kit alone as it is installed anyway, counts as none: pip never reads it, so
    that nothing in the environment is the caller's.

    Raises:
        WorkError: it is not a regular file, too large or not UTF-8, or has an invalid line (invalid).
    """
    if not tree.exists(FILE):
        return NO_REQUIREMENTS
    reader = _Reader(tree)
    reader.read_file(FILE, FILE, constraint=False)
    found = Requirements(tuple(reader.lines), reader.files)
    return NO_REQUIREMENTS if found.fingerprint() in ([], [kit_requirement]) else found


class _Reader:
    def __init__(self, tree: SourceTree) -> None:
        self._tree = tree
        self.lines: list[RequirementLine] = []
        self.files: dict[str, bytes] = {}

    def read_file(self, path: str, where: str, *, constraint: bool) -> None:
        if not self._tree.is_file(path):
            raise _invalid(where, f"{path} is not a regular file of the source")
        if self._tree.size(path) > MAX_BYTES:
            raise _invalid(where, f"{path} is larger than {MAX_BYTES} bytes")
        if path in self.files:
            return  # included twice, or by itself: its lines were read already
        if len(self.files) == MAX_FILES:
            raise _invalid(where, f"more than {MAX_FILES} files are included")
        self.files[path] = self._tree.read(path)
        for number, line in _logical_lines(_decoded(self.files[path], path, where)):
            self._read_line(line, path, number, constraint=constraint)

    def _read_line(self, text: str, path: str, number: int, *, constraint: bool) -> None:
        where = describe_line(path, number)
        if len(text) > MAX_LINE_LENGTH:
            raise _invalid(where, f"the line is longer than {MAX_LINE_LENGTH} characters")
        if _VARIABLE.search(text):
            raise _invalid(where, "a build has no environment variables to insert")
        if text.startswith("-"):
            for option, value in _options(text, where):
                if option in {"--requirement", "--constraint"} and value:
                    self._include(option, value, path, where, constraint=constraint)
                else:
                    self.lines.append(_option_line(option, value, path, number))
        else:
            self.lines.append(_requirement_line(text, path, number, constraint=constraint))

    def _include(self, option: str, value: str, path: str, where: str, *, constraint: bool) -> None:
        if "://" in value or value.startswith("file:"):
            raise _invalid(where, f"{option} can only name a file of the source")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), value))
        if target.startswith(("/", "../")) or target in {"..", "."}:
            raise _invalid(where, f"{option} names a file outside of the source")
        self.read_file(target, where, constraint=constraint or option == "--constraint")


def _decoded(content: bytes, path: str, where: str) -> str:
    """Decode a file as pip does: by its byte order mark, else by a comment `# coding: …` at its top, else as UTF-8."""
    mark, encoding = next((each for each in _BYTE_ORDER_MARKS if content.startswith(each[0])), (b"", "utf-8"))
    if not mark:
        comments = [line for line in content.split(b"\n")[:2] if line.startswith(b"#")]
        named = [match.group(1).decode("ascii", "replace").lower() for match in map(_CODING.search, comments) if match]
        if named and _ENCODINGS.fullmatch(named[0].replace("_", "-")):
            encoding = named[0]
    try:
        return content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise _invalid(where, f"{path} is not {encoding.upper()} text (byte {error.start})") from None
    except LookupError:
        raise _invalid(where, f"{path} names the encoding {encoding[:40]!r}, which there is not") from None


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines without comments, joined after a backslash; each with the number of its first physical line."""
    parts: list[str] = []
    first = 0
    for number, physical in enumerate([*text.splitlines(), ""], start=1):
        is_comment = physical.lstrip().startswith("#")
        if not parts:
            first = number
        if physical.endswith("\\") and not is_comment:
            parts.append(physical[:-1])
            continue
        # A comment line ends a continued line, and is not part of it.
        parts.append("" if is_comment else physical)
        line = _COMMENT.sub("", "".join(parts)).strip()
        parts = []
        if line:
            yield first, line


def _options(text: str, where: str) -> Iterator[tuple[str, str | None]]:
    try:
        words = deque(shlex.split(text))
    except ValueError as error:
        raise _invalid(where, f"{text!r} cannot be read: {error}") from None
    while words:
        word = words.popleft()
        name, equals, value = word.partition("=")
        if word in _FLAGS:
            yield word, None
        elif name in _VALUED and name.startswith("--") and equals:
            yield _VALUED[name], value
        elif word in _VALUED and words:
            yield _VALUED[word], words.popleft()
        elif word[:2] in _VALUED and not word.startswith("--") and len(word) > 2:
            yield _VALUED[word[:2]], word[2:].removeprefix("=")
        else:
            raise _invalid(where, f"{word!r} is not an option that a requirements file may have")


def _option_line(option: str, value: str | None, path: str, number: int) -> RequirementLine:
    text = option if value is None else f"{option} {value}"
    if option == "--editable" and value:
        kind = RequirementKind.VCS if _VCS.match(value) else RequirementKind.LOCAL
        return RequirementLine(kind, text, path, number, _name_in_url(value))
    if option == "--find-links" and value and not re.match(r"https?://", value):
        return RequirementLine(RequirementKind.LOCAL, text, path, number)
    return RequirementLine(RequirementKind.OPTION, text, path, number)


def _requirement_line(text: str, path: str, number: int, *, constraint: bool) -> RequirementLine:
    words = text.split(" ")
    cut = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    specifier = " ".join(words[:cut]).strip()
    if _ARCHIVE.search(specifier) and "://" not in specifier:
        # Such a name is a valid requirement too, but pip reads it as a file.
        return RequirementLine(RequirementKind.LOCAL, text, path, number, None, constraint)
    try:
        requirement = Requirement(specifier.rstrip("; ") if specifier.endswith(";") else specifier)
    except InvalidRequirement as error:
        kind = _kind_of_location(specifier)
        if kind is None and (match := _LEGACY.fullmatch(specifier)):
            name = canonicalize_name(match.group(1))
            return RequirementLine(RequirementKind.HOSTED, text, path, number, name, constraint)
        if kind is None:
            raise _invalid(
                describe_line(path, number), f"{text[:200]!r} cannot be read: {str(error).splitlines()[0]}"
            ) from None
        return RequirementLine(kind, text, path, number, _name_in_url(specifier), constraint)
    location = requirement.url
    kind = (_kind_of_location(location) or RequirementKind.LOCAL) if location else RequirementKind.HOSTED
    return RequirementLine(kind, text, path, number, canonicalize_name(requirement.name), constraint)


def _kind_of_location(location: str) -> RequirementKind | None:
    if _VCS.match(location):
        return RequirementKind.VCS
    if re.match(r"https?://", location, re.IGNORECASE):
        return RequirementKind.HOSTED
    bare = location.partition(";")[0].rstrip()
    if bare.endswith("]"):
        bare = bare.rpartition("[")[0]
    is_path = bare.startswith((".", "/", "file:")) or ("/" in bare and " " not in bare)
    return RequirementKind.LOCAL if is_path else None


def _name_in_url(location: str) -> str | None:
    egg = _EGG.search(location)
    return canonicalize_name(egg.group(1)) if egg else None


def _invalid(where: str, cause: str) -> WorkError:
    return WorkError(ErrorClass.INVALID, f"{where}: {cause}")
