"""Environments: the packages that an algorithm requires, resolved and installed once for equal requirements."""
