"""The directory that `PYTHONPATH` names in an algorithm's process and the interpreters that it starts."""
