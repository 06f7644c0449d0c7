def apply(input):
    return "helper"
