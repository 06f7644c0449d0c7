"""The entry point of every algorithm image: serves the algorithm of one source tree over HTTP.

These files are copied into the image, to `DIRECTORY`, and run there by the image's own Python: they need the standard
library only, from Python 3.8 on, and import nothing else of Longshore. The source is the working directory.

Environment: `LONGSHORE_ALGORITHM_NAME` (its script is `src/NAME.py`), `LONGSHORE_PORT` (default 8080, 0 for none),
`LONGSHORE_SOCKET` (path of a unix socket to serve on as well), `LONGSHORE_SOCKET_SEALED` (1: the algorithm starts only
once the socket's directory cannot be written any more), `LONGSHORE_MAX_REQUEST_BYTES` (default 10 MiB).
"""

DIRECTORY = "/opt/longshore/runner"
"""Where these files lie in an image."""

SOURCE_DIRECTORY = "/opt/algorithm"
"""Where the algorithm's source lies in an image; the entry point's working directory."""

ARGUMENTS = ("-I", "-S", DIRECTORY)
"""What follows the Python program in an image's entry point.

Isolated and without site: neither the source, nor `PYTHONPATH`, nor an installed requirement can stand in for a module
of the runner or of the standard library.
"""

PORT = 8080
"""On which the runner serves in an image."""

RUNS_AS = 65532
"""User and group of a running algorithm: another than the one that installed, so it cannot change what is installed."""
