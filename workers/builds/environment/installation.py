"""Install an environment in a build container, step by step.

More than half of the time of a plain `python3 -m venv` and `pip install` is byte-compiling on one core (measured with
numpy, scipy, pandas and scikit-learn on two cores). So pip is not installed but unpacked beside the environment, and
the packages are compiled afterwards on all cores, without their own tests.
"""

from collections.abc import Callable, Iterator
from importlib import resources

from shared.errors import ErrorClass, WorkError
from workers.builds.base_image import BaseImage
from workers.builds.environment.container import BUILDER, ENVIRONMENT, PYTHON, WORK, BuildContainer
from workers.builds.environment.index_relay import IndexRelay
from workers.builds.environment.pip_errors import PipOutput
from workers.builds.environment.requirements import FILE, NO_REQUIREMENTS, Requirements
from workers.builds.environment.spec import EnvironmentSpec
from workers.builds.source_tree import SourceTree
from workers.images.archive import MOMENT, Entry, file_entry
from workers.runner import SOURCE_DIRECTORY

_CA_BUNDLE = f"{WORK}/ca-bundle.pem"
_PIP = f"{WORK}/pip"
_INSTALLED = f"{WORK}/scratch/installed.txt"
_REPORTS = (f"{WORK}/scratch/requirements.json", f"{WORK}/scratch/kit.json")
_STEPS = resources.files("workers.builds.environment") / "steps"
_PIP_INSTALL = [
    PYTHON, f"{_PIP}/pip", "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--no-color",
    "--progress-bar", "off", "--no-compile",
]  # fmt: skip
_COMPILE = [
    PYTHON, "-I", "-m", "compileall", "-q", "-f", "-j", "0",
    # By hash, because all files get one time; unchecked, because nothing changes the files later.
    "--invalidation-mode", "unchecked-hash",
    # Tests are half of some packages; they are compiled only if they are imported.
    "-x", r"[/\\]tests[/\\]",
    f"{ENVIRONMENT}/lib",
]  # fmt: skip
_MIN_PIP_WITH_REPORTS = (22, 2)


class Installation:
    """The installation of one environment in a container."""

    def __init__(self, spec: EnvironmentSpec, base: BaseImage, tree: SourceTree, container: BuildContainer) -> None:
        self._spec = spec
        self._tree = tree
        self._log = container.context.log
        self._container = container
        self._uses_source = not spec.requirements.shareable
        # An editable install of the source must stay valid, so the source is where it will run.
        self._directory = SOURCE_DIRECTORY if self._uses_source else f"{WORK}/source"
        self._base = base
        self._variables = _variables(spec, base.path)
        self._pip_version = (0, 0)
        self._relay: IndexRelay | None = None

    @property
    def directories(self) -> tuple[str, ...]:
        """The directories to save; the source too if it was installed, with what that wrote into it."""
        return (ENVIRONMENT, SOURCE_DIRECTORY) if self._uses_source else (ENVIRONMENT,)

    def install(self, relay: IndexRelay | None) -> str:
        """Install the requirements and the kit, and return the lock: a sorted line for each installed distribution.

        `relay` has the package index; without one pip uses its default, if the container has a network.

        The lock is read from the installation: resolving first would fetch every package's metadata twice.

        Raises:
            WorkCancelledError: the build was cancelled.
            WorkError: a requirement cannot be installed (invalid); the index could not be reached (transient); the
                base image cannot make a virtual environment (unavailable).
        """
        self._relay = relay
        if relay is not None:
            self._variables["PIP_INDEX_URL"] = relay.url
        elif self._spec.network == "none":
            self._variables["PIP_NO_INDEX"] = "1"
        self._container.put(self._inputs())
        with self._log.step("Creating a virtual environment"):
            self._create_virtual_environment()
        if self._spec.requirements.files:
            with self._log.step(f"Installing {FILE}"):
                self._pip_install(["-r", FILE], self._spec.requirements, _REPORTS[0])
        if self._spec.kit_requirement and not self._has_kit():
            with self._log.step(f"The requirements have no development kit: adding {self._spec.kit_requirement}"):
                self._install_kit()
        return "".join(f"{line}\n" for line in sorted(self._step_output("print_lock.py", *_REPORTS)))

    def compile(self) -> None:
        """Byte-compile the installed files; one that cannot be compiled fails when it is imported, as with pip."""
        with self._log.step("Compiling the installed packages"):
            self._run(_COMPILE, f"{WORK}/home", logged=False)

    def _inputs(self) -> Iterator[Entry]:
        if self._uses_source:
            yield from self._tree.entries(SOURCE_DIRECTORY.strip("/"), BUILDER)
        else:
            for path, content in sorted(self._spec.requirements.files.items()):
                yield file_entry(f"{self._directory.strip('/')}/{path}", content, BUILDER)
        if self._spec.ca_bundle:
            yield file_entry(_CA_BUNDLE.strip("/"), self._spec.ca_bundle)

    def _create_virtual_environment(self) -> None:
        printed: list[str] = []
        arguments = (ENVIRONMENT, _PIP, *(["base-packages"] if self._base.has_packages else []))
        if self._run_step(["python3", "-I", "-B"], "create_environment.py", arguments, printed.append) != 0:
            for line in printed:
                self._log(line)
            raise WorkError(
                ErrorClass.UNAVAILABLE,
                f"the base image {self._spec.base_image} (`longshore environments`) cannot create a virtual "
                "environment: it needs python3 with venv; the job waits",
            )
        major, minor = printed[-1].split(".")[:2]
        self._pip_version = (int(major), int(minor))

    def _pip_install(self, arguments: list[str], requirements: Requirements, report: str) -> None:
        output = PipOutput(requirements, self._spec.limits.memory_bytes)
        reported = ["--report", report] if self._pip_version >= _MIN_PIP_WITH_REPORTS else []
        if self._relay is not None:
            self._relay.failure = None
        exit_code = self._run([*_PIP_INSTALL, *reported, *arguments], self._directory, output)
        if exit_code != 0:
            error = output.failure(exit_code, None if self._relay is None else self._relay.failure)
            raise WorkError(error.error_class, self._log.masked(error.message))

    def _has_kit(self) -> bool:
        return self._run([PYTHON, "-I", "-B", "-c", "import Algorithmia"], f"{WORK}/home", logged=False) == 0

    def _install_kit(self) -> None:
        """Install the kit without changing the version of anything that is installed."""
        self._step_output("write_constraints.py", _INSTALLED)
        try:
            self._pip_install(["-c", _INSTALLED, self._spec.kit_requirement], NO_REQUIREMENTS, _REPORTS[1])
        except WorkError as error:
            raise WorkError(
                error.error_class,
                f"the development kit {self._spec.kit_requirement} cannot be installed together with the requirements: "
                f"{error.message.removeprefix(FILE + ': ')}",
            ) from None
        if not self._has_kit():
            self._log("The development kit is installed, but `import Algorithmia` fails")

    def _step_output(self, script: str, *arguments: str) -> list[str]:
        """Run one of our steps with the environment's Python, and return the lines that it prints.

        Raises:
            WorkError: it failed (unavailable: no input of a caller is part of it).
        """
        printed: list[str] = []
        if self._run_step([PYTHON, "-I", "-B"], script, arguments, printed.append) != 0:
            raise WorkError(
                ErrorClass.UNAVAILABLE,
                f"the Python of the base image {self._spec.base_image} (`longshore environments`) cannot list what is "
                f"installed: {printed[-1] if printed else 'no message'}; the job waits",
            )
        return printed

    def _run_step(self, python: list[str], script: str, arguments: tuple[str, ...], log: Callable[[str], None]) -> int:
        return self._container.run(
            [*python, "-c", (_STEPS / script).read_text("utf-8"), *arguments], self._variables, f"{WORK}/home", log
        )

    def _run(self, command: list[str], directory: str, output: PipOutput | None = None, *, logged: bool = True) -> int:
        def read(line: str) -> None:
            if self._relay is not None:
                line = self._relay.readable(line)
            if output is not None:
                output.read(line)
            if logged:
                self._log(line)

        return self._container.run(command, self._variables, directory, read)


def _variables(spec: EnvironmentSpec, search_path: str) -> dict[str, str]:
    variables = {
        "HOME": f"{WORK}/home",
        "TMPDIR": f"{WORK}/scratch",
        "PATH": f"{ENVIRONMENT}/bin:{search_path}",
        "LANG": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(MOMENT),
        "PYTHONPATH": _PIP,  # old packages import pip, or start it for their setup_requires, when they are built
    }
    if spec.ca_bundle:
        variables |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), _CA_BUNDLE)
        variables["GIT_SSL_CAINFO"] = _CA_BUNDLE
    return variables
