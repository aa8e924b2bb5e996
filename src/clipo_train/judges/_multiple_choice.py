r"""Multiple choice: the letter of an option."""

import re

from clipo_train.judges._answers import WRAPPED, boxed
from clipo_train.types import Example, Verdict


def multiple_choice(example: Example, completion: str) -> Verdict:
    r"""Right is the answer's letter, in the last `\boxed{}`, after `answer is` or `answer:`, or alone.

    The option's text may follow the letter, as in `\boxed{B. four}`. Two letters are no choice.
    """
    truth, said = choice(example.answer), choice(completion)
    success = said is not None and said == truth
    return Verdict(success, float(success), answer=said)


def choice(text: str) -> str | None:
    """The letter that a text chooses."""
    said = boxed(text)
    if said is None:
        announced = re.findall(r"answer\s*(?:is|:)\W*([A-Z])(?=\W*(?:$|[.,;)*\n]))", text, flags=re.IGNORECASE)
        said = announced[-1] if announced else text
    while (inner := WRAPPED.sub(r"\1", said)) != said:
        said = inner
    letter = re.fullmatch(r"\(?([A-Za-z])(?:[.:)].*)?", said.strip(" $*\n\t"), flags=re.DOTALL)
    return letter[1].upper() if letter else None
