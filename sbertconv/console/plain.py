"""The console of the commands: a str is text, whatever stands in it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from sbertconv.errors import visible


class PlainConsole(Console):
    """A console for which a str is text, in cells and titles of tables too: no markup, no emoji, and `visible`. What
    has a style is a `Text`.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """The text, with the style that its place has."""
        return super().render_str(visible(text), **{**options, "markup": False, "emoji": False})
