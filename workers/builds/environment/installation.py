"""The steps that fill a build container with an environment.

What takes the time, measured with numpy, scipy, pandas and scikit-learn on two cores: of a plain `python3 -m venv` and
`pip install`, more than half is byte-compiling on one core. So pip is not installed but unpacked beside the
environment, and what it installs is compiled afterwards on all cores, without the packages' own tests.
"""

from collections.abc import Callable, Iterator
from importlib import resources

from shared.errors import ErrorClass, WorkError
from workers.builds.assembly.source_tree import SourceTree
from workers.builds.environment.container import BUILDER, ENVIRONMENT, WORK, BuildContainer
from workers.builds.environment.pip_errors import PipOutput
from workers.builds.environment.requirements import FILE, NO_REQUIREMENTS, Requirements
from workers.builds.environment.spec import EnvironmentSpec
from workers.images.archive import MOMENT, Entry, file_entry
from workers.runner import SOURCE_DIRECTORY

PYTHON = f"{ENVIRONMENT}/bin/python"
_CA_BUNDLE = f"{WORK}/ca-bundle.pem"
_PIP = f"{WORK}/pip"
_INSTALLED = f"{WORK}/scratch/installed.txt"
_REPORTS = (f"{WORK}/scratch/requirements.json", f"{WORK}/scratch/kit.json")
_STEPS = resources.files("workers.builds.environment") / "steps"
_COMPILE = [
    PYTHON, "-I", "-m", "compileall", "-q", "-f", "-j", "0",
    # By hash, because the files' times are made equal; unchecked, because nothing changes the files any more.
    "--invalidation-mode", "unchecked-hash",
    # A package's own tests are half of some; whoever does import one waits for its compilation.
    "-x", r"[/\\]tests[/\\]",
    f"{ENVIRONMENT}/lib",
]  # fmt: skip
_OLDEST_WITH_REPORTS = (22, 2)


class Installation:
    """An environment that is being made in a container."""

    def __init__(self, spec: EnvironmentSpec, search_path: str, tree: SourceTree, container: BuildContainer) -> None:
        self._spec = spec
        self._tree = tree
        self._log = container.watch.log
        self._container = container
        self._alone = not spec.requirements.shareable
        # An editable install of the source must stay valid, so a source that takes part stands where it will run.
        self._directory = SOURCE_DIRECTORY if self._alone else f"{WORK}/source"
        self._variables = _variables(spec, search_path)
        self._pip_version = (0, 0)

    @property
    def directories(self) -> tuple[str, ...]:
        """What is to be kept; of a source that took part also what installing it wrote into it."""
        return (ENVIRONMENT, SOURCE_DIRECTORY) if self._alone else (ENVIRONMENT,)

    def install(self) -> str:
        """Install the requirements and the kit, and give the lock: what is installed now, a sorted line for each.

        The lock is taken from what was installed rather than resolved before: resolving first would fetch every
        package's metadata twice.

        Raises:
            Stopped: the stop was asked for.
            WorkError: a requirement cannot be installed (invalid); the index could not be reached (transient); the
                base image cannot make a virtual environment (unavailable).
        """
        self._container.put(self._inputs())
        with self._log.step("Making a virtual environment"):
            self._make_virtual_environment()
        if self._spec.requirements.files:
            with self._log.step(f"Installing {FILE}"):
                self._pip_install(["-r", FILE], self._spec.requirements, _REPORTS[0])
        if self._spec.kit_requirement and not self._has_kit():
            with self._log.step(f"The requirements bring no development kit: adding {self._spec.kit_requirement}"):
                self._install_kit()
        return "".join(f"{line}\n" for line in sorted(self._printed("lock.py", *_REPORTS)))

    def compile(self) -> None:
        """Byte-compile what was installed. A file that cannot be is left for whoever imports it, as pip does."""
        with self._log.step("Compiling what was installed"):
            self._run(_COMPILE, f"{WORK}/home", shown=False)

    def _inputs(self) -> Iterator[Entry]:
        if self._alone:
            yield from self._tree.entries(SOURCE_DIRECTORY.strip("/"), BUILDER)
        else:
            for path, content in sorted(self._spec.requirements.files.items()):
                yield file_entry(f"{self._directory.strip('/')}/{path}", content, BUILDER)
        if self._spec.ca_bundle:
            yield file_entry(_CA_BUNDLE.strip("/"), self._spec.ca_bundle)

    def _make_virtual_environment(self) -> None:
        printed: list[str] = []
        made = self._step(["python3", "-I", "-B"], "make_environment.py", (ENVIRONMENT, _PIP), printed.append)
        if made != 0:
            for line in printed:
                self._log(line)
            raise WorkError(
                ErrorClass.UNAVAILABLE,
                f"the base image {self._spec.base_image} (LONGSHORE_BASE_IMAGE) cannot make a virtual environment: "
                "it needs python3 with venv; the job waits",
            )
        major, minor = printed[-1].split(".")[:2]
        self._pip_version = (int(major), int(minor))

    def _pip_install(self, arguments: list[str], requirements: Requirements, report: str) -> None:
        output = PipOutput(requirements, self._spec.limits.memory_bytes)
        reported = ["--report", report] if self._pip_version >= _OLDEST_WITH_REPORTS else []
        exit_code = self._run([*_PIP_INSTALL, *reported, *arguments], self._directory, output)
        if exit_code != 0:
            error = output.failure(exit_code)
            raise WorkError(error.error_class, self._log.masked(error.message))

    def _has_kit(self) -> bool:
        return self._run([PYTHON, "-I", "-B", "-c", "import Algorithmia"], f"{WORK}/home", shown=False) == 0

    def _install_kit(self) -> None:
        """Install the kit beside what is there, of which nothing may move."""
        self._printed("keep.py", _INSTALLED)
        try:
            self._pip_install(["-c", _INSTALLED, self._spec.kit_requirement], NO_REQUIREMENTS, _REPORTS[1])
        except WorkError as error:
            raise WorkError(
                error.error_class,
                f"the development kit {self._spec.kit_requirement} cannot be installed beside the requirements: "
                f"{error.message.removeprefix(FILE + ': ')}",
            ) from None
        if not self._has_kit():
            self._log("The development kit is installed, but `import Algorithmia` fails")

    def _printed(self, script: str, *arguments: str) -> list[str]:
        """What a step of ours prints, run by the environment's Python.

        Raises:
            WorkError: it failed (unavailable: nothing of it is a caller's).
        """
        printed: list[str] = []
        if self._step([PYTHON, "-I", "-B"], script, arguments, printed.append) != 0:
            raise WorkError(
                ErrorClass.UNAVAILABLE,
                f"the Python of the base image {self._spec.base_image} (LONGSHORE_BASE_IMAGE) cannot tell what is "
                f"installed: {printed[-1] if printed else 'no word of why'}; the job waits",
            )
        return printed

    def _step(self, python: list[str], script: str, arguments: tuple[str, ...], take: Callable[[str], None]) -> int:
        code = (_STEPS / script).read_text("utf-8")
        return self._container.run([*python, "-c", code, *arguments], self._variables, f"{WORK}/home", take)

    def _run(self, command: list[str], directory: str, output: PipOutput | None = None, *, shown: bool = True) -> int:
        def take(line: str) -> None:
            if output is not None:
                output.read(line)
            if shown:
                self._log(line)

        return self._container.run(command, self._variables, directory, take)


_PIP_INSTALL = [
    PYTHON, f"{_PIP}/pip", "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-color",
    "--progress-bar", "off", "--no-compile",
]  # fmt: skip


def _variables(spec: EnvironmentSpec, search_path: str) -> dict[str, str]:
    variables = {
        "HOME": f"{WORK}/home",
        "TMPDIR": f"{WORK}/scratch",
        "PATH": f"{ENVIRONMENT}/bin:{search_path}",
        "LANG": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(MOMENT),
    }
    if spec.index_url:
        variables["PIP_INDEX_URL"] = spec.index_url
    if spec.ca_bundle:
        variables |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), _CA_BUNDLE)
        variables["GIT_SSL_CAINFO"] = _CA_BUNDLE
    return variables
