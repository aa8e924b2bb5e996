"""The rollout engine that every model has: the policy itself."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clipo_train.errors import ConfigError
from clipo_train.policy import forward, tolerance, trial_prompts
from clipo_train.rollout import Generation, Sampling
from clipo_train.rollout.decoding import decode
from clipo_train.special_tokens import settle_generation


class TransformersEngine:
    """Samples by the policy's own forward. Nothing to sync.

    It decodes by `clipo_train.rollout.decoding` where that draws what scoring finds likely, else by `model.generate`.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        in_step: Every process takes as many forward passes as the slowest: needed where parameters are sharded.

    Raises:
        ConfigError: Neither way of decoding draws what scoring finds likely.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, in_step: bool = False) -> None:
        self.model = model
        self.in_step = in_step
        self.tokenizer = tokenizer
        self.end_ids, self.pad_id = settle_generation(model, tokenizer)
        self.own_loop = True
        if not in_step:
            self._choose_loop()

    def sync(self) -> None:
        """The weights are shared."""

    def close(self) -> None:
        """It holds nothing of its own."""

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], *, samples: int, sampling: Sampling) -> Generation:
        """See `RolloutEngine.generate`. Random numbers come from torch's default generator."""
        ids, attention_mask = self._pad_left(prompts)
        self.model.train(False)
        response = decode(
            self.model,
            ids,
            attention_mask,
            samples=samples,
            sampling=sampling,
            end_ids=self.end_ids,
            pad_id=self.pad_id,
            in_step=self.in_step,
            own_loop=self.own_loop,
        )
        tokens = torch.cat([ids.repeat_interleave(samples, 0), response], 1)
        ended = torch.isin(response, torch.tensor(self.end_ids, device=tokens.device))
        response_mask = ended.cumsum(1) - ended.long() == 0
        prompt_mask = attention_mask.bool().repeat_interleave(samples, 0)
        texts = [
            str(self.tokenizer.decode(row[mask], skip_special_tokens=True))
            for row, mask in zip(response.cpu(), response_mask.cpu(), strict=True)
        ]
        return Generation(tokens, torch.cat([prompt_mask, response_mask], 1), response_mask, texts, ended.any(1))

    def _choose_loop(self) -> None:
        problem = self._problem()
        if problem is None:
            return
        self.own_loop = False
        if (problem := self._problem()) is not None:
            raise ConfigError(
                f"model.path: expected a model that samples from the distribution that it scores, got "
                f"{type(self.model).__name__}: {problem}"
            )

    def _problem(self) -> str | None:
        """What is wrong with decoding, tried on two prompts of different lengths; None if nothing is."""
        try:
            generation = self.generate(trial_prompts(self.model), samples=2, sampling=Sampling(8, 0.0))
            with torch.no_grad():
                logits, _ = forward(self.model, generation)
        except ConfigError:
            raise
        except (
            ArithmeticError,
            AssertionError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            return " ".join(f"{type(error).__name__}: {error}".split())[:150]
        logits = logits.float()
        below = logits.amax(-1) - logits.gather(-1, generation.response.unsqueeze(-1)).squeeze(-1)
        missed = float(below[generation.response_mask].mean())
        return None if missed <= tolerance(self.model) else f"greedy tokens are {missed:.2g} nats from the likeliest"

    def _pad_left(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        width = max(len(prompt) for prompt in prompts)
        rows = [[self.pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self.model.device
        return torch.tensor(rows, device=device), torch.tensor(mask, device=device)
