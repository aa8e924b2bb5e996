"""Numbers and quantities: exact values, bases and units."""

import re
from dataclasses import dataclass
from fractions import Fraction

from clipo_train.judges._answers import WRAPPED

_UNITS = {
    "m": "meter metre",
    "cm": "centimeter centimetre",
    "mm": "millimeter millimetre",
    "km": "kilometer kilometre",
    "g": "gram gm",
    "kg": "kilogram",
    "mg": "milligram",
    "l": "liter litre",
    "ml": "milliliter millilitre",
    "s": "sec second",
    "min": "minute",
    "h": "hr hour",
    "day": "",
    "week": "",
    "month": "",
    "yr": "year",
    "ft": "feet foot",
    "in": "inch inche",
    "yd": "yard",
    "mi": "mile",
    "lb": "pound",
    "oz": "ounce",
    "gal": "gallon",
    "usd": "dollar buck",
    "eur": "euro",
    "gbp": "",
    "jpy": "yen",
    "cent": "",
    "degree": "deg",
    "rad": "radian",
    "am": "",
    "pm": "",
    "n": "newton",
    "j": "joule",
    "w": "watt",
    "v": "volt",
    "hz": "hertz",
    "pa": "pascal",
    "k": "kelvin",
    "c": "celsius",
    "f": "fahrenheit",
    "percent": "% percentage pct",
    "kwh": "",
    "acre": "",
}
_KNOWN = {name: unit for unit, names in _UNITS.items() for name in (unit, *names.split())}
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_FUNCTIONS = re.compile(r"\b(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?\b|\b(?:log|ln|exp|sqrt|mod|base|if|for|to)\b")
_SUFFIX = re.compile(
    r"(.*?(?:[\d)}\]!.]|\\pi))\s*?((?:\s?\\text\s*\{[^{}]*\}|\s?%|\s[A-Za-z]|[A-Za-z]{2})"
    r"(?:[\sA-Za-z%/.-]|\\text\s*\{[^{}]*\}|\\cdot|\^\s*\{?\s*-?\d\s*\}?)*)",
    flags=re.DOTALL,
)
_DECIMAL = re.compile(
    r"([+-]?)\s*(\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d{1,3}(?: \d{3})+|\d+\.?\d*|\.\d+)"
    r"(?:[eE]([+-]?\d{1,4})|\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*\{?\s*([+-]?\d{1,4})\s*\}?)?"
)
_POWER = re.compile(r"([+-]?)\s*10\s*\^\s*\{?\s*([+-]?\d{1,4})\s*\}?")
_RATIO = re.compile(
    r"([+-]?)\s*\(?(?:\\frac\s*\{\s*([+-]?[\d.]+)\s*\}\s*\{\s*([+-]?[\d.]+)\s*\}|([+-]?[\d.]+)\s*/\s*([+-]?[\d.]+))\)?"
)
_BASE = re.compile(
    r"\(?\s*(-?[0-9A-Za-z]*\d[0-9A-Za-z,\s]*?)\s*\)?(?:\s*_\s*\{?\s*(\w+)\s*\}?|\s*(?:in\s+)?base\s*(\w+))"
)
_BASES = {
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}


@dataclass(frozen=True)
class Number:
    """A rational number: its value, and whether it is written as a decimal, which may be rounded."""

    value: Fraction
    decimal: bool


@dataclass(frozen=True)
class Quantity:
    """An answer apart from its unit: the rest, the units of measure and other words, and a factor such as a million."""

    text: str
    known: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    scale: int = 1


def based(text: str) -> tuple[str, str] | None:
    """Returns the digits and the base of a number such as `12_5`; None for all else."""
    found = _BASE.fullmatch(re.sub(r"\\text\s*\{\s*base\s*(\w+)\s*\}", r"\1", WRAPPED.sub(r"\1", text)))
    if not found:
        return None
    base = (found[2] or found[3]).lower().removeprefix("base")
    base = _BASES.get(base, base)
    return (re.sub(r"[\s,]", "", found[1]).upper().lstrip("0"), base) if base.isdigit() else None


def number(text: str) -> Number | None:
    """Returns an integer, decimal, fraction or power of ten; None for all else."""
    text = text.strip()
    while text.startswith("(") and text.endswith(")") and "(" not in text[1:]:
        text = text[1:-1].strip()
    if found := _POWER.fullmatch(text):
        return Number(int(found[1] + "1") * Fraction(10) ** int(found[2]), False)
    if found := _DECIMAL.fullmatch(text):
        value = Fraction(re.sub(r"[ ,]", "", found[2])) * Fraction(10) ** int(found[3] or found[4] or 0)
        return Number(-value if found[1] == "-" else value, "." in found[2] or bool(found[3]))
    if not (found := _RATIO.fullmatch(text)):
        return None
    try:
        value = Fraction(found[2] or found[4]) / Fraction(found[3] or found[5])
    except (ValueError, ZeroDivisionError):
        return None
    return Number(-value if found[1] == "-" else value, "." in text)


def same_number(one: Number, other: Number) -> bool:
    """Whether two numbers are equal; a decimal equals what agrees with it to six decimals and five digits."""
    if not (one.decimal or other.decimal):
        return one.value == other.value
    near = abs(one.value - other.value) <= Fraction(1, 10**5) * max(abs(one.value), abs(other.value))
    return near and round(one.value, 6) == round(other.value, 6)


def quantity(text: str) -> Quantity:
    """Splits a plain answer into what is measured and its unit, which may be a currency or any words after a number."""
    currency = re.match(r"(-?)\s*(USD|EUR|GBP|JPY)\s*", text)
    if currency:
        rest = quantity(currency[1] + text[currency.end() :])
        return Quantity(rest.text, rest.known | {currency[2].lower()}, rest.words, rest.scale)
    found = _SUFFIX.fullmatch(text)
    if not found:
        return Quantity(text)
    core, suffix = found.groups()
    wrapped = "\\text" in suffix or "%" in suffix
    if not wrapped and re.search(r"(?<![\\a-zA-Z])[a-zA-Z]", core):  # letters on both sides are variables
        return Quantity(text)
    tokens = _tokens(WRAPPED.sub(r" \1 ", suffix).lower())
    known = frozenset(token for token in tokens if token.lstrip("/").partition("^")[0] in _UNITS)
    words = frozenset(tokens) - known - set(_SCALES)
    if _FUNCTIONS.search(suffix) or (not wrapped and any(len(word) < 3 for word in words)):
        return Quantity(text)
    scale = 1
    for token in tokens:
        scale *= _SCALES.get(token, 1)
    return Quantity(core.strip(), known, words, scale)


def units_fit(one: Quantity, other: Quantity) -> bool:
    """Whether two units are the same, or one is missing; of other words, some must be shared."""
    (known, words), (others, more) = (one.known, one.words), (other.known, other.words)
    if known and others and known != others:
        return False
    return bool((known | words) & (others | more)) or not (known | words) or not (others | more)


def _tokens(suffix: str) -> list[str]:
    r"""Returns the units and words of a suffix, each as its usual sign, as in `['mi', '/h']` or `['cm^2']`."""
    suffix = suffix.replace("\\cdot", " ").replace("p.m", "pm").replace("a.m", "am").replace("mph", "mi/h")
    suffix = re.sub(r"\s*(?:/|\bper\b)\s*", " /", suffix.replace("kmh", "km/h")).replace(".", " ")
    found: list[str] = []
    power = ""
    for slash, word, exponent in re.findall(r"(/?)([a-z%]+)(?:\s*\^\s*\{?\s*(-?\d)\s*\}?)?", suffix):
        if word in ("square", "sq", "squared", "cubic", "cu", "cubed"):
            power = "^2" if word.startswith("s") else "^3"
            if word.endswith("d") and found:
                found[-1], power = found[-1] + power, ""
        elif word not in ("unit", "units", "of", "the", "a", "in" if found else ""):
            singular = word[:-1] if word.endswith("s") and len(word) > 2 else word
            sign = _KNOWN.get(word, _KNOWN.get(singular, singular))
            found.append(slash + sign + (f"^{exponent}" if exponent else power))
            power = ""
    return found
