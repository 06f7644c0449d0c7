"""The service that hosts repositories: `longshore git`."""
