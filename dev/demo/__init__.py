"""The main job as a caller does it, on real parts, told step by step: `make demo`."""
