from .sorting import in_order


def apply(input):
    return in_order(input)
