"""Put back what the standard library has dropped, in every interpreter of the algorithm, as it starts.

`PYTHONPATH` names this directory. It is taken off the path again, and the image's own `sitecustomize` runs as well. Any
Python may start with it, so this file is also valid Python 2; one older than 3.8 has everything still.
"""

import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]

if sys.version_info >= (3, 8):
    import importlib.machinery
    import importlib.util

    if "longshore_compat" not in sys.modules:
        own = importlib.util.spec_from_file_location(
            "longshore_compat", os.path.join(os.path.dirname(here), "compat.py")
        )
        if own is not None and own.loader is not None:
            sys.modules["longshore_compat"] = importlib.util.module_from_spec(own)
            own.loader.exec_module(sys.modules["longshore_compat"])
            sys.modules["longshore_compat"].install()

    other = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if other is not None and other.loader is not None:
        sys.modules["sitecustomize"] = importlib.util.module_from_spec(other)
        other.loader.exec_module(sys.modules["sitecustomize"])
