"""Environments: what an algorithm's requirements install, resolved and installed once."""
