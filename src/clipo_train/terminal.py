"""Shows text that others wrote in the terminal, as it is."""

from rich.text import Text

from clipo_train.errors import printable


def plain(text: str) -> Text:
    """Returns a text for rich to print: nothing in it is markup, an emoji code or a terminal's control character."""
    return Text(printable(text, lines=True))
