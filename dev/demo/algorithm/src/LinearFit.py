"""Fits a straight line through points by least squares."""

import numpy
from Algorithmia import ADK


def apply(given: dict[str, list[float]]) -> dict[str, object]:
    """`{"x": [...], "y": [...]}` becomes the line's slope and intercept, and how much of y it explains."""
    x, y = numpy.asarray(given["x"], dtype=float), numpy.asarray(given["y"], dtype=float)
    slope, intercept = numpy.linalg.lstsq(numpy.column_stack([x, numpy.ones_like(x)]), y, rcond=None)[0]
    unexplained = numpy.sum((y - (slope * x + intercept)) ** 2)
    return {
        "slope": round(float(slope), 6),
        "intercept": round(float(intercept), 6),
        "r_squared": round(float(1 - unexplained / numpy.sum((y - y.mean()) ** 2)), 6),
        "computed_by": f"numpy {numpy.__version__}",
    }


ADK(apply).init({"x": [0, 1, 2], "y": [1, 3, 5]})
