"""The entry point of every algorithm image: an HTTP server that runs the algorithm of one source tree.

The files of this package are copied into the image, to `DIRECTORY`, and run there by the image's own Python. They need
only the standard library, from Python 3.8 on, and import nothing else of Longshore. They run in the source's directory.

Environment: `LONGSHORE_MODULE` (the algorithm's module in `src`), `LONGSHORE_PORT` (default 8080, 0 for none),
`LONGSHORE_SOCKET` (path of a unix socket to listen on as well), `LONGSHORE_SOCKET_SEALED` (1: start the algorithm only
after the socket's directory has become read-only), `LONGSHORE_MAX_REQUEST_BYTES` (default 10 MiB).
"""

DIRECTORY = "/opt/longshore/runner"

SOURCE_DIRECTORY = "/opt/algorithm"
"""Directory of the algorithm's source in an image, and the working directory of the entry point."""

ARGUMENTS = ("-I", "-S", DIRECTORY)
"""Arguments of the Python program in an image's entry point.

Isolated mode without site: no file of the source, of `PYTHONPATH` or of an installed package can replace a module of
the runner or of the standard library.
"""

PORT = 8080

RUNS_AS = 65532
"""User and group of a running algorithm: another than the one that installed, so it cannot change what is installed."""
