def in_order(values):
    return sorted(values)
