class AlgorithmError(Exception):
    def __init__(self, message, error_type):
        super().__init__(message)
        self.error_type = error_type


def apply(input):
    if input < 0:
        raise AlgorithmError("must not be negative", "InputError")
    return 1 / input
