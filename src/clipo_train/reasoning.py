"""Which part of a completion is judged: what follows the reasoning of a model that thinks."""

from collections.abc import Sequence
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


def reasoning_of(
    tokenizer: PreTrainedTokenizerBase, end: str, *, template: str, judge: bool | None
) -> Reasoning | None:
    """Returns how to leave out the reasoning of a prompt's completions; None where they are judged whole.

    Args:
        tokenizer: The policy's.
        end: The end of the rendered prompt, after the last user's words.
        template: The chat template, or nothing.
        judge: Whether reasoning is judged; None leaves that to the template and the vocabulary.
    """
    if judge:
        return None
    end, known = end.rstrip(), tokenizer.get_added_vocab()
    if any(end.endswith(close) for close in TAGS.values()):
        return None  # such as Qwen3's empty pair: the prompt has ended the reasoning
    opened = [tag for tag, close in TAGS.items() if end.rfind(tag) > end.rfind(close)]
    tags = tuple(
        tag
        for tag, close in TAGS.items()
        if judge is False or tag in opened or any(text in template or text in known for text in (tag, close))
    )
    if not tags:
        return None
    special = _special_tokens(tokenizer)
    hidden = any(token in tag + TAGS[tag] for tag in tags for token in special)
    return Reasoning(tags, bool(opened), tokenizer if hidden else None)


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
