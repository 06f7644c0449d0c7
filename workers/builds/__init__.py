"""The queue `builds`: from a commit to an image in the image store."""
