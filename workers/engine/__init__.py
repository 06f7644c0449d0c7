"""Everything that talks to the Docker engine: building environments and algorithm images, pushing and pulling them."""
