"""Numbers and quantities: exact values, units, percentages and bases."""

import re
from dataclasses import dataclass
from fractions import Fraction

from clipo_train.judges._answers import WRAPPED
from clipo_train.judges._notation import NUMBER_WORDS

_UNITS = {
    "m": "meter metre",
    "cm": "centimeter centimetre",
    "mm": "millimeter millimetre",
    "km": "kilometer kilometre",
    "g": "gram",
    "kg": "kilogram",
    "mg": "milligram",
    "l": "liter litre",
    "ml": "milliliter millilitre",
    "s": "sec second",
    "min": "minute",
    "h": "hr hour",
    "day": "",
    "ft": "feet foot",
    "in": "inch inche",
    "yd": "yard",
    "mi": "mile",
    "lb": "pound",
    "oz": "ounce",
    "mph": "mi/h",
    "dollar": "usd buck",
    "euro": "eur €",
    "cent": "¢",
    "degree": "deg °",
    "rad": "radian",
    "unit": "",
    "am": "",
    "pm": "",
    "n": "newton",
    "j": "joule",
    "w": "watt",
    "v": "volt",
    "hz": "hertz",
    "pa": "pascal",
    "k": "kelvin",
    "gbp": "£",
    "yen": "¥ jpy",
    "percent": "% \\%",
    "st": "",
    "nd": "",
    "rd": "",
    "th": "",
}
_CANONICAL = {name: unit for unit, names in _UNITS.items() for name in (unit, *names.split())}
_ORDINALS = {"st", "nd", "rd", "th"}
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_FUNCTIONS = re.compile(r"\b(?:a?(?:rc)?(?:sin|cos|tan|cot|sec|csc)h?|log|ln|exp|sqrt|mod|and|or|if)\b")

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)"
_POWER = r"(?:[eE]([+-]?\d{1,3})|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{?\s*([+-]?\d{1,3})\s*\}?)?"
_NUMBER = re.compile(rf"({_DECIMAL}){_POWER}")
_TEN = re.compile(r"10\s*\^\s*\{?\s*([+-]?\d{1,3})\s*\}?")
_RATIO = re.compile(
    r"(?:(\d+)(?:\s+|\s*(?=\\)))?(?:\\frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(-?\d+)\s*\}|(\d))|(\d+)\s*/\s*(\d+))"
)
_BASE = re.compile(r"(.*[0-9A-Za-z])\s*_\s*(?:\{\s*(\w+)\s*\}|(\w+))", flags=re.DOTALL)
_BASES = {name: str(base) for base, name in enumerate(NUMBER_WORDS)}
_SUFFIX = re.compile(
    r"(.*[\d}\])a-z.])\s*(?:"
    r"\^?\s*\{?\s*\\(?:text|mbox|mathrm|textnormal|textrm|rm)\s*\{([^{}]*)\}\s*\}?|\^\s*\{?\s*(\\circ)\s*\}?"
    r"|(?<=[\d})])\s*(\\?%|[€£¥¢])|(?<=[\d})])\^?\{?\s*([A-Za-z][A-Za-z./ ]*)\}?)"
    r"\s*(\^\s*\{?\s*\d\s*\}?)?",
    flags=re.DOTALL,
)


@dataclass(frozen=True)
class Quantity:
    """An answer without its unit.

    Attributes:
        text: The rest.
        unit: The unit's usual sign, or an empty text.
        scale: What a word such as `million` multiplies by.
    """

    text: str
    unit: str = ""
    scale: int = 1


def quantity(text: str) -> Quantity:
    """Splits a plain answer into what is measured and the unit, which may be a currency or any words after a number."""
    currency = re.match(r"(USD|[€£¥])\s*(?=[\d.])", text)
    if currency:
        return Quantity(text[currency.end() :].strip(), _CANONICAL[currency[1].lower()])
    found = _SUFFIX.fullmatch(text)
    if not found:
        return Quantity(text)
    core, wrapped, circle, sign, bare, power = found.groups()
    name = "degree" if circle else (wrapped or sign or bare or "").strip().strip(".,").lower()
    scale = 1
    first, _, rest = name.partition(" ")
    if first in _SCALES:
        name, scale = rest.strip(), _SCALES[first]
    variable = bare is not None and len(name) == 1 and (name not in "mgs" or text[found.end(1)] != " ")
    if (bare and scale == 1 and not _is_unit(name)) or variable or _FUNCTIONS.search(name):
        return Quantity(text)
    return Quantity(core.strip(), _unit(name, power), scale)


def based(text: str) -> tuple[str, str]:
    """Splits a number such as `12_5` into its digits and its base, which is empty where there is none."""
    found = _BASE.fullmatch(WRAPPED.sub(r"\1", text))
    if not found:
        return text, ""
    digits = re.sub(r"\s|,", "", found[1])
    base = (found[2] or found[3]).lower()
    base = _BASES.get(base, base)
    return (
        (digits.upper(), base)
        if base.isdigit() and re.fullmatch(r"-?[0-9A-Za-z]*\d[0-9A-Za-z]*", digits)
        else (text, "")
    )


def rational(text: str) -> Fraction | None:
    """Returns the exact value of an integer, decimal, fraction, mixed number or power of ten; None for all else."""
    sign, text = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    text = text.strip()
    if found := _TEN.fullmatch(text):
        return sign * Fraction(10) ** int(found[1])
    if found := _NUMBER.fullmatch(text):
        return sign * Fraction(found[1].replace(",", "")) * Fraction(10) ** int(found[2] or found[3] or 0)
    if not (found := _RATIO.fullmatch(text)):
        return None
    above, below = int(found[2] or found[3] or found[6]), int(found[4] or found[5] or found[7])
    return sign * (int(found[1] or 0) + Fraction(above, below)) if below else None


def same_number(one: Fraction, other: Fraction, spelled: tuple[str, str]) -> bool:
    """Whether two numbers are equal, or one is a decimal of six places and digits or more that the other rounds to."""
    return one == other or any(
        _rounds(exact, decimal, text) for exact, decimal, text in ((one, other, spelled[1]), (other, one, spelled[0]))
    )


def _rounds(exact: Fraction, decimal: Fraction, text: str) -> bool:
    found = re.fullmatch(r"[+-]?(\d*)\.(\d{6,})", text.strip())
    if not found or len((found[1] + found[2]).lstrip("0")) < 6:
        return False
    return abs(exact - decimal) <= Fraction(1, 2 * 10 ** len(found[2]))


def _is_unit(name: str) -> bool:
    """Whether letters right after a number are a unit rather than variables."""
    parts = re.split(r"[\s/]+", name)
    return all(
        _CANONICAL.get(part.replace(".", "").rstrip("s"))
        or part.replace(".", "") in _CANONICAL
        or len(part) >= 4
        or part in ("sq", "per", "of", "the", "in")
        for part in parts
    )


def _unit(name: str, power: str | None) -> str:
    name = re.sub(r"\s*(?:\bper\b|/)\s*", "/", name.replace(".", ""))
    degree = re.sub(r"\D", "", power or "")
    for word, exponent in (("square", "2"), ("sq", "2"), ("cubic", "3")):
        if name.startswith(word + " "):
            name, degree = name[len(word) :].strip(), exponent
    parts = ["".join(_singular(word) for word in part.split()) for part in name.split("/")]
    unit = "/".join(parts)
    unit = _CANONICAL.get(unit, unit)
    return "" if unit in _ORDINALS else f"{unit}^{degree}" if degree not in ("", "1") else unit


def _singular(word: str) -> str:
    if word in _CANONICAL:
        return _CANONICAL[word]
    single = word[:-1] if word.endswith("s") and len(word) > 2 else word
    return _CANONICAL.get(single, single)
