"""Rollouts, and the protocol of the engines that sample them."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from clipo_ops import GroupLayout
from clipo_train.types import Example, Verdict


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Attributes:
        max_new_tokens: Tokens a response may have at most.
        temperature: 0 is greedy.
        top_p: Sample from the likeliest tokens only that together have this probability. Below 1 the sampled
            distribution is not the one that log-probabilities are taken under: for evaluation only.
    """

    max_new_tokens: int
    temperature: float
    top_p: float = 1.0


class Generation(NamedTuple):
    """Sampled sequences: prompts padded on the left, then responses padded on the right.

    Attributes:
        tokens: Prompt and response.
        attention_mask: True at every token that is no padding.
        response_mask: True at the response's tokens, its end-of-sequence token included; its columns are the last ones
            of `tokens`.
        texts: The responses as text, without special tokens.
        finished: True where the response ended by itself rather than at the length limit.
        logprobs: The response's log-probabilities as the engine has them, at the sampling temperature (at temperature 0
            they are those of 1), 0 at padding. None where the policy itself samples: they are the trainer's.
    """

    tokens: Int[Tensor, "rollouts sequence"]
    attention_mask: Bool[Tensor, "rollouts sequence"]
    response_mask: Bool[Tensor, "rollouts tokens"]
    texts: list[str]
    finished: Bool[Tensor, " rollouts"]
    logprobs: Float[Tensor, "rollouts tokens"] | None = None

    @property
    def response(self) -> Int[Tensor, "rollouts tokens"]:
        """The responses' tokens."""
        return self.tokens[:, -self.response_mask.shape[1] :]

    def select(self, rows: Int[Tensor, " rows"]) -> "Generation":
        """Some of the sequences, without the columns in which all of them are padding."""
        attention, response = self.attention_mask[rows], self.response_mask[rows]
        start = int(attention.long().argmax(1).min())
        unused = response.shape[1] - max(1, int(response.sum(1).max()))
        end = attention.shape[1] - unused
        return Generation(
            self.tokens[rows, start:end],
            attention[:, start:end],
            response[:, : response.shape[1] - unused],
            [self.texts[row] for row in rows.tolist()],
            self.finished[rows],
            None if self.logprobs is None else self.logprobs[rows, : response.shape[1] - unused],
        )

    def padded(self, prompt: int, response: int) -> "Generation":
        """The same sequences with so many columns of prompt and of response, at least as many as there are."""
        width = self.response_mask.shape[1]
        sides = (prompt - (self.tokens.shape[1] - width), response - width)
        return Generation(
            pad(self.tokens, sides),
            pad(self.attention_mask, sides),
            pad(self.response_mask, (0, sides[1])),
            self.texts,
            self.finished,
            None if self.logprobs is None else pad(self.logprobs, (0, sides[1])),
        )

    def join(self, other: "Generation") -> "Generation":
        """These sequences, then the other's, padded alike."""
        widths = [(part.tokens.shape[1], part.response_mask.shape[1]) for part in (self, other)]
        prompt, response = max(whole - own for whole, own in widths), max(own for _, own in widths)
        first, second = self.padded(prompt, response), other.padded(prompt, response)
        logprobs = None
        if first.logprobs is not None and second.logprobs is not None:
            logprobs = torch.cat([first.logprobs, second.logprobs])
        return Generation(
            torch.cat([first.tokens, second.tokens]),
            torch.cat([first.attention_mask, second.attention_mask]),
            torch.cat([first.response_mask, second.response_mask]),
            first.texts + second.texts,
            torch.cat([first.finished, second.finished]),
            logprobs,
        )


def positions(attention_mask: Int[Tensor, "rows tokens"]) -> Int[Tensor, "rows tokens"]:
    """The place of each token in its row, without the padding on the left: as `generate` of transformers counts."""
    return (attention_mask.cumsum(1) - 1).clamp(min=0)


def known_arguments(model: Any, **arguments: Any) -> dict[str, Any]:
    """Those arguments that the model's forward takes: some models count positions themselves, or keep all logits."""
    parameters = inspect.signature(model.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return arguments
    names = {parameter.name for parameter in parameters}
    return {name: value for name, value in arguments.items() if name in names}


class RolloutEngine(Protocol):
    """Samples completions from the current policy."""

    def generate(self, prompts: Sequence[Sequence[int]], *, samples: int, sampling: Sampling) -> Generation:
        """Samples `samples` responses to each prompt; those to one prompt are consecutive rows."""
        ...

    def sync(self) -> None:
        """Takes over the policy's weights after an update."""
        ...

    def close(self) -> None:
        """Gives back what the engine holds; it samples no more."""
        ...


@dataclass(frozen=True)
class Rollouts:
    """One step's rollouts, as they pass between the trainer's stages.

    Attributes:
        examples: The task of every rollout; those of a group are consecutive.
        generation: What was sampled.
        verdicts: What the verifier says of it.
        group_size: Rollouts per prompt.
    """

    examples: Sequence[Example]
    generation: Generation
    verdicts: Sequence[Verdict]
    group_size: int

    @property
    def success(self) -> Bool[Tensor, " rollouts"]:
        """True for correct rollouts."""
        return torch.tensor([verdict.success for verdict in self.verdicts], device=self.generation.tokens.device)

    @property
    def outcome(self) -> Float[Tensor, " rollouts"]:
        """Outcome rewards."""
        return torch.tensor([float(verdict.reward) for verdict in self.verdicts], device=self.generation.tokens.device)

    @property
    def groups(self) -> GroupLayout:
        """Which rollouts answer the same prompt."""
        return GroupLayout.from_size(len(self.verdicts), self.group_size, device=self.generation.tokens.device)

    def select(self, rows: Int[Tensor, " rows"]) -> "Rollouts":
        """Some of the rollouts; whole groups of them."""
        chosen = rows.tolist()
        return Rollouts(
            [self.examples[row] for row in chosen],
            self.generation.select(rows),
            [self.verdicts[row] for row in chosen],
            self.group_size,
        )

    def join(self, other: "Rollouts") -> "Rollouts":
        """These rollouts, then the other's, of groups of the same size."""
        return Rollouts(
            [*self.examples, *other.examples],
            self.generation.join(other.generation),
            [*self.verdicts, *other.verdicts],
            self.group_size,
        )
