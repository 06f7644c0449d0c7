"""Write the installed distributions to the file `argv[1]`, as constraints for the next installation."""

import sys
from importlib.metadata import distributions

with open(sys.argv[1], "w") as constraints:
    constraints.writelines(f"{found.metadata['Name']}=={found.version}\n" for found in distributions())
