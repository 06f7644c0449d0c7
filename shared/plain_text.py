"""Remove characters from untrusted texts that control a terminal, are invisible, or reorder what is shown.

Builds, registries, git servers, engines and callers choose parts of messages. Every text that is stored as a message or
printed for an operator is processed here: escape sequences (ECMA-48) and invisible formatting characters
(bidirectional overrides, zero-width characters) are removed, line breaks of every kind become one kind, and each
control character that is left becomes U+FFFD. A text that was plain is not changed.
"""

import re

_STRING = r"[^\x00-\x1f\x7f-\x9f]*"
_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor movements
    rf"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f]){_STRING}(?:\x07|\x1b\\|\x9c)"  # titles, links, device commands
    r"|\x1b[ -/]*[0-OQ-WYZ\\`-~]"  # character sets, resets
)
"""Sequences of ECMA-48 section 5.3 to 5.6, in the 7-bit and the 8-bit form. Each ends at the next control character at
the latest, so that reading a text takes time in proportion to its length."""
_LINE_BREAK = re.compile(r"\r\n?|[\n\v\f\x1c-\x1e\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
"""The general category Cf of Unicode 15, and the block of tags."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters except tab and line feed, and lone halves of surrogate pairs, which are not UTF-8."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def plain_text(text: str) -> str:
    """Return a text without these characters. Tabs and line feeds stay."""
    if text.isprintable():
        return text
    text = _ESCAPE_SEQUENCE.sub("", text)
    text = _LINE_BREAK.sub("\n", text)
    return _CONTROL.sub(REPLACEMENT, _INVISIBLE.sub("", text))


def plain_line(text: str) -> str:
    """Return a text without these characters, with a space in place of each line break and tab."""
    if text.isprintable():
        return text
    return re.sub(r"[\n\t]", " ", plain_text(text))
