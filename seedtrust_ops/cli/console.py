"""A console on which texts of the database only show: nothing in them is obeyed, by Rich or by the terminal.

Import it inside commands: Rich is slow to load.
"""

from typing import Any

from rich.console import Console
from rich.text import Text

from seedtrust_ops.formatting import strip_control_chars


class PlainConsole(Console):
    """A console that takes no square brackets for markup, and lets no control sequence through.

    What is given as a `Text` must have gone through `strip_control_chars` before.
    """

    def render_str(self, text: str, **how: Any) -> Text:
        """Return text as it stands, whatever is in it."""
        lines = "\n".join(strip_control_chars(line) for line in text.split("\n"))
        return super().render_str(lines, **(how | {"markup": False, "emoji": False, "highlight": False}))
