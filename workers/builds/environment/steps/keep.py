"""Write what is installed to the file `argv[1]`, as constraints for what is installed next."""

import sys
from importlib.metadata import distributions

with open(sys.argv[1], "w") as kept:
    kept.writelines(f"{found.metadata['Name']}=={found.version}\n" for found in distributions())
