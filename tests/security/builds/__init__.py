"""Attacks of an owner's source, wheels and setup.py in a build."""
