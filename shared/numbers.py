"""Parse numbers of untrusted headers and documents."""

MAX_NUMBER = 2**53 - 1
"""The largest whole number that every JSON parser reads exactly (RFC 8259 section 6)."""
_MAX_DIGITS = len(str(MAX_NUMBER))


def whole_number(value: object, maximum: int = MAX_NUMBER) -> int | None:
    """Return the whole number from 0 to `maximum` that `value` is or contains as ASCII digits; otherwise None.

    `int()` and `str.isdigit` accept other scripts, signs and underscores, and `int()` raises for thousands of digits.
    """
    if isinstance(value, str):
        digits = value.strip(" \t")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS):
            return None
        value = int(digits)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= maximum else None
