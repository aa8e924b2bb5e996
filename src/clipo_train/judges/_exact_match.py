"""The answer itself."""

from clipo_train.types import Example, Verdict


def exact_match(example: Example, completion: str) -> Verdict:
    """Right is the answer itself, white space around it aside."""
    said = completion.strip()
    success = said == example.answer.strip()
    return Verdict(success, float(success), answer=said)
