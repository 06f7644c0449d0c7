import logging
import sys
import warnings

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
log = logging.getLogger("talker")
print("printed at import")


def apply(input):
    print("printed {}".format(input))
    sys.stdout.flush()
    log.info("logged %s", input)
    warnings.warn("a warning")
    sys.stderr.write("to stderr\n")
    sys.stdout.write("no line end")
    return input
