"""Calls of algorithms: the version that a call names, and the records of asynchronous calls."""
