"""Run git, limit which addresses it may reach, and call the service that hosts repositories."""
