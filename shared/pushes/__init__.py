"""The status rows of pushes: written behind the fence, reported when they stall."""
