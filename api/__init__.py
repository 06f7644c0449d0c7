"""The HTTP interface: the v1 API and the hosted git repositories. It writes rows and sends messages."""
