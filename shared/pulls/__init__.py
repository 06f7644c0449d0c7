"""Where the image of an execution is pulled from, and why from there."""
