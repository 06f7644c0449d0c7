"""What speaks HTTP: the v1 interface and the hosted git repositories. Writes rows and sends nudges; never does the work."""
