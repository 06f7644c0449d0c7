"""Calling algorithms: what runs is found or waited for, the call handed on, its answer brought back."""
