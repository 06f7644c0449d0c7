"""Run instances on the Docker engine of this machine: one container each, reached by its own unix socket."""
