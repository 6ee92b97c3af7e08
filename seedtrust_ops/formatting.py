"""Makes of a text that anybody may have typed one that is nothing but text, wherever it is shown.

Escaping for a certain place, such as HTML or a spreadsheet's cell, is done where that is written.
"""


def strip_control_chars(text: str) -> str:
    """Return text with a space for each character that does something instead of showing something.

    Such are line breaks, a terminal's control sequences, and the marks that turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def single_line(text: str, longest: int | None = None) -> str:
    """Return the text stripped of control characters, with single spaces, cut if it is too long."""
    line = " ".join(strip_control_chars(text).split())
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"
