"""Which part of a completion is judged: what follows the reasoning of a model that thinks."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from clipo_train.rollout import Generation

TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<reasoning>": "</reasoning>",
    "[THINK]": "[/THINK]",
    "<seed:think>": "</seed:think>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|channel|>analysis<|message|>": "<|channel|>final<|message|>",
}
"""Reasoning stands between these: what opens it -> what closes it."""


class Reasoning(NamedTuple):
    """How the reasoning of a prompt's completions is told from what is judged.

    Attributes:
        tags: Those that the model uses.
        opened: The prompt itself opens the reasoning.
        tokenizer: Decodes the completion anew where a tag has special tokens, which the engine's text leaves out.
    """

    tags: tuple[str, ...]
    opened: bool = False
    tokenizer: PreTrainedTokenizerBase | None = None

    def strip(self, completion: str) -> str:
        """Returns what follows the reasoning; nothing if the reasoning is cut short."""
        closed = False
        for tag in self.tags:
            _, close, after = completion.rpartition(TAGS[tag])
            closed, completion = closed or bool(close), after
            if tag in completion:
                return ""
        return "" if self.opened and not closed else completion


def find_reasoning(
    tokenizer: PreTrainedTokenizerBase, *, template: str, judge: bool | None
) -> Callable[[str], Reasoning | None]:
    """Returns a function of the end of a rendered prompt, which says how to leave out its completions' reasoning.

    It gives None where they are judged whole.

    Args:
        tokenizer: The policy's.
        template: The chat template, or nothing.
        judge: Whether reasoning is judged; None leaves that to the template and the vocabulary.
    """
    known = " ".join([template, *tokenizer.get_added_vocab()])
    used = [tag for tag, close in TAGS.items() if judge is False or tag in known or close in known]
    special = _special_tokens(tokenizer)

    def find(end: str) -> Reasoning | None:
        if judge or end.rstrip().endswith(tuple(TAGS.values())):
            return None  # the prompt has ended the reasoning, as Qwen3's empty pair does
        opened = [tag for tag, close in TAGS.items() if end.rfind(tag) > end.rfind(close)]
        tags = tuple(dict.fromkeys([*used, *opened]))
        hidden = any(token in tag + TAGS[tag] for tag in tags for token in special)
        return Reasoning(tags, bool(opened), tokenizer if hidden else None) if tags else None

    return find


def judged_texts(reasoning: Sequence[Reasoning | None], generation: Generation) -> list[str]:
    """Returns the part of each completion that is judged.

    Args:
        reasoning: One for each prompt, whose completions are consecutive.
        generation: The completions.
    """
    samples = len(generation.texts) // len(reasoning)
    return [_judged(reasoning[row // samples], generation, row) for row in range(len(generation.texts))]


def _judged(reasoning: Reasoning | None, generation: Generation, row: int) -> str:
    text = generation.texts[row]
    if reasoning is None:
        return text
    if reasoning.tokenizer is None:
        return reasoning.strip(text)
    ids = generation.response[row][generation.response_mask[row]].cpu()
    text = reasoning.strip(str(reasoning.tokenizer.decode(ids, skip_special_tokens=False)))
    for token in _special_tokens(reasoning.tokenizer):
        text = text.replace(token, "")
    return text


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
