"""What speaks HTTP: the v1 interface and the hosted git repositories. Writes rows, sends messages."""
