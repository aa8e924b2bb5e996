"""Prompts as the policy's tokens: text as it is, messages through the chat template."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from clipo_train.errors import ConfigError, one_line, reason
from clipo_train.reasoning import Reasoning, find_reasoning
from clipo_train.types import Example

_log = logging.getLogger(__name__)


class EncodedExample(NamedTuple):
    """A task and the token ids of its prompt.

    Attributes:
        example: The task.
        prompt_ids: Its prompt.
        reasoning: How to leave the reasoning out of what is judged; None where completions are judged whole.
    """

    example: Example
    prompt_ids: list[int]
    reasoning: Reasoning | None = None


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    max_tokens: int | None = None,
    judge_thinking: bool | None = None,
) -> list[EncodedExample]:
    """Encodes prompts.

    A last message of the assistant is continued. Where the chat template refuses or ignores the system role, the
    system message is put before the first user message, which is logged once.

    Args:
        tokenizer: The policy's.
        examples: Tasks.
        max_tokens: Longer prompts are left out; how many is logged.
        judge_thinking: Whether reasoning is judged; None leaves that to the template and the vocabulary.

    Raises:
        ConfigError: A prompt that the tokenizer or its chat template cannot encode, or that is empty; names the row. Or
            no prompt is short enough.
    """
    encoder = _Encoder(tokenizer, judge_thinking)
    encoded = [encoder.encode(example) for example in examples]
    if encoder.merged:
        _log.warning(
            "data: the chat template does not take the system role; the system messages of %d prompts stand before "
            "their first user message",
            encoder.merged,
        )
    kept = [item for item in encoded if max_tokens is None or len(item.prompt_ids) <= max_tokens]
    if encoded and not kept:
        shortest = min(len(item.prompt_ids) for item in encoded)
        raise ConfigError(
            f"rollout.max_prompt_tokens: expected at least {shortest}, the shortest prompt, got {max_tokens}"
        )
    if len(kept) < len(encoded):
        longest = max(len(item.prompt_ids) for item in encoded)
        _log.warning(
            "data: %d of %d prompts are longer than rollout.max_prompt_tokens (%d) and are left out; the longest has "
            "%d tokens",
            *(len(encoded) - len(kept), len(encoded), max_tokens, longest),
        )
    return kept


class _Encoder:
    """Encodes prompts with one tokenizer, and counts the system messages that it had to merge."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, judge_thinking: bool | None) -> None:
        self.tokenizer, self.judge_thinking = tokenizer, judge_thinking
        template = tokenizer.chat_template
        self.variants = list(template) if isinstance(template, dict) and "default" not in template else []
        self.template: str = (template or {}).get("default", "") if isinstance(template, dict | None) else template
        if not isinstance(self.template, str | None):
            kind = type(self.template).__name__
            raise ConfigError(f"model.path: expected a tokenizer whose chat template is text, got {kind}")
        self.reasoning = find_reasoning(tokenizer, template=self.template, judge=judge_thinking)
        self.merged = 0

    def encode(self, example: Example) -> EncodedExample:
        with one_line(f"data: expected prompts that the tokenizer can encode, got {_place(example)}"):
            if isinstance(example.prompt, str):
                ids, end = self._encode_text(example.prompt), "".join(example.prompt.split()[-1:])
            else:
                messages = [dict(message) for message in example.prompt]
                text, end = self._render(messages, example)
                ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if not ids:
            raise ConfigError(f"data: expected prompts of at least one token, got none in {_place(example)}")
        return EncodedExample(example, ids, self.reasoning(end))

    def _encode_text(self, text: str) -> list[int]:
        """Tokens of a text: one beginning of sequence, though the text has its own, and no end after it."""
        tokenizer = self.tokenizer
        ids = list(tokenizer(text)["input_ids"])
        bos, eos = tokenizer.bos_token, tokenizer.eos_token
        if bos and text.startswith(bos) and ids[:2] == [tokenizer.bos_token_id] * 2:
            ids = ids[1:]
        if eos and not text.endswith(eos) and ids[-1:] == [tokenizer.eos_token_id]:
            ids = ids[:-1]
        return ids

    def _render(self, messages: list[dict[str, str]], example: Example) -> tuple[str, str]:
        """The messages in the chat template, and what follows them there."""
        if not self.template:
            got = f"only {', '.join(self.variants)}" if self.variants else "none"
            raise ConfigError(
                f"model.path: expected a tokenizer with a default chat template for the messages of {_place(example)}, "
                f"got {got}"
            )
        text, refusal = self._attempt(messages)
        if refusal and [message["role"] for message in messages[:2]] == ["system", "user"]:
            system, user, *others = messages
            merged = {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
            messages = [merged, *others]
            text, still = self._attempt(messages)
            self.merged += not still
            refusal = refusal if still else ""
        if refusal:
            raise ConfigError(f"data: expected messages that the chat template takes, got {_place(example)}: {refusal}")
        return text, self._end(messages, text)

    def _attempt(self, messages: list[dict[str, str]]) -> tuple[str, str]:
        """The rendered messages, and why the chat template does not take them."""
        try:
            text = self._apply(messages)
        except Exception as error:  # a template may raise anything
            return "", reason(error)
        for message in messages:
            if message["role"] in ("system", "user") and message["content"].strip() not in text:
                return "", f"it leaves out the {message['role']} message"
        return text, ""

    def _apply(self, messages: list[dict[str, str]]) -> str:
        prefill = messages[-1]["role"] == "assistant"
        if prefill and not messages[-1]["content"].strip():
            messages, prefill = messages[:-1], False
        options: dict[str, Any] = {"add_generation_prompt": not prefill, "continue_final_message": prefill}
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **options))

    def _end(self, messages: list[dict[str, str]], text: str) -> str:
        """What the chat template, or the assistant's last message, puts after the other messages."""
        others = messages[:-1] if messages[-1]["role"] == "assistant" else messages
        try:
            before = str(self.tokenizer.apply_chat_template(others, tokenize=False))
        except Exception:  # it may not know what to do with these messages
            before = text
        end = text.removeprefix(before)
        return end if 0 < len(end) < len(text) else "".join(text.split()[-1:])


def _place(example: Example) -> str:
    return example.place or f"the prompt {str(example.prompt)[:60]!r}"
