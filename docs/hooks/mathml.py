"""Turns the pages' TeX into MathML when the site is built: no script, no font and no network is needed to read it."""

import html
import re
from itertools import cycle
from typing import Any

from latex2mathml.converter import convert

_BAR = re.compile(r'<mo(?: stretchy="false")?>(&#x0007C;|&#x02016;)</mo>')
_TEX = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(page_html: str, **_: Any) -> str:
    """Called by mkdocs with every page's HTML."""
    return _TEX.sub(_mathml, page_html)


def _mathml(match: re.Match[str]) -> str:
    kind, tex = match[2], html.unescape(match[3]).strip()
    return _fenced(convert(tex, display="block" if kind == "[" else "inline"))


def _fenced(math: str) -> str:
    """Bars as pairs around what stands between them: a browser takes them for relations, with space on either side."""
    forms = cycle(("prefix", "postfix"))
    return _BAR.sub(lambda bar: f'<mo stretchy="false" form="{next(forms)}">{bar[1]}</mo>', math)
