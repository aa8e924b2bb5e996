"""The rollout engine that every model has: the policy itself."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from clipo_train.rollout import Generation, Sampling
from clipo_train.rollout.decoding import decode


class TransformersEngine:
    """Samples by the policy's own forward. Nothing to sync.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        in_step: Every process takes as many forward passes as the slowest: needed where parameters are sharded.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, in_step: bool = False) -> None:
        self.model = model
        self.in_step = in_step
        self.tokenizer = tokenizer
        ends = model.generation_config.eos_token_id
        self.end_ids = [ends] if isinstance(ends, int) else list(ends)
        # Of a model's own sampling defaults (top-k, repetition penalty, ...) none is used, nor saved with the policy:
        # what they sample from is not the distribution that log-probabilities are taken under.
        model.generation_config = GenerationConfig(eos_token_id=self.end_ids, pad_token_id=tokenizer.pad_token_id)

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
            pad_id=int(self.tokenizer.pad_token_id),
            in_step=self.in_step,
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

    def _pad_left(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        width = max(len(prompt) for prompt in prompts)
        pad = self.tokenizer.pad_token_id
        rows = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self.model.device
        return torch.tensor(rows, device=device), torch.tensor(mask, device=device)
