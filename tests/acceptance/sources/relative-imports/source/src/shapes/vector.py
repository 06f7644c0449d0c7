from math import sqrt

from ..units import METRE


class Vector:
    def __init__(self, x, y):
        self.x, self.y, self.unit = x, y, METRE

    def length(self):
        return sqrt(self.x ** 2 + self.y ** 2)
