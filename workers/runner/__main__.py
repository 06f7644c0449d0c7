"""Start the runner from its own directory: `python -I -S DIRECTORY`.

The package is loaded from its path under a name of its own, so that no other package can be imported in its place.
"""

import importlib
import importlib.util
import os
import sys

PACKAGE = "longshore_runner"

directory = os.path.dirname(os.path.abspath(__file__))
spec = importlib.util.spec_from_file_location(
    PACKAGE, os.path.join(directory, "__init__.py"), submodule_search_locations=[directory]
)
if spec is None or spec.loader is None:
    raise ImportError("The runner's files are not complete in " + directory)
package = importlib.util.module_from_spec(spec)
sys.modules[PACKAGE] = package
spec.loader.exec_module(package)
sys.exit(importlib.import_module(PACKAGE + ".main").main())
