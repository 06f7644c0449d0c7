"""The two transports of a push: the engine's own push, and Longshore's direct upload."""
