"""Makes of a text that anybody may have typed one that is nothing but text, wherever it is shown.

Escaping for a certain place, such as HTML or a spreadsheet's cell, is done where that is written.
"""


def printable(text: str) -> str:
    """Return text with a space for each character that does something instead of showing something.

    Such are line breaks, a terminal's control sequences, and the marks that turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def on_one_line(text: str, longest: int | None = None) -> str:
    """Return text without what `printable` replaces and without doubled spaces, cut where it is longer than that."""
    line = " ".join(printable(text).split())
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"
