"""Ways of an image into a registry: the engine's own push, and Longshore's direct one."""
