"""Git: the one way to start it, the addresses it may go to, and the service that hosts repositories."""
