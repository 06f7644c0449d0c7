"""Benchmarks of Longshore, compared with other tools in the same run: `make bench`."""
