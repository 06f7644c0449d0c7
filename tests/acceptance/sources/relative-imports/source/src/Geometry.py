from . import units
from .shapes.vector import Vector


def apply(input):
    from src.shapes.vector import Vector as again

    return {"length": Vector(*input).length(), "unit": units.METRE, "same": again is Vector}
