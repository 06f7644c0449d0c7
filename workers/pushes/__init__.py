"""The queue `pushes`: push images from the image store to registries."""
