"""Running images on the Docker engine of this machine: one container each, reached over a unix socket of its own."""
