"""Turns the pages' TeX into MathML when the site is built: no script, no font and no network is needed to read it."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_TEX = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(page_html: str, **_: Any) -> str:
    """Called by mkdocs with every page's HTML."""
    return _TEX.sub(_mathml, page_html)


def _mathml(match: re.Match[str]) -> str:
    kind, tex = match[2], html.unescape(match[3]).strip()
    return convert(tex, display="block" if kind == "[" else "inline")
