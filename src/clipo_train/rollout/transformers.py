"""The rollout engine that every model has: `generate` of transformers, on the policy's own weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from clipo_train.rollout import Generation, Sampling


class TransformersEngine:
    """Samples with `model.generate`. Nothing to sync: it is the policy itself that samples.

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
        # A model's own sampling defaults (top-k, repetition penalty, ...) would make the sampled distribution
        # differ from the one that log-probabilities are taken under.
        model.generation_config = GenerationConfig(eos_token_id=self.end_ids, pad_token_id=tokenizer.pad_token_id)

    def sync(self) -> None:
        """The weights are shared."""

    def close(self) -> None:
        """It holds nothing of its own."""

    @torch.no_grad()
    def generate(self, prompts: Sequence[Sequence[int]], *, samples: int, sampling: Sampling) -> Generation:
        """See `RolloutEngine.generate`. Random numbers come from torch's default generator."""
        ids, attention_mask = self._pad_left(prompts)
        sampled = sampling.temperature > 0
        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=sampled,
            temperature=sampling.temperature if sampled else None,
            top_k=0 if sampled else None,
            top_p=sampling.top_p if sampled else None,
            num_return_sequences=samples,
            eos_token_id=self.end_ids,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        self.model.train(False)
        generate: Any = self.model.generate
        tokens: Tensor = generate(
            input_ids=ids, attention_mask=attention_mask, generation_config=config, synced_gpus=self.in_step
        )
        response = tokens[:, ids.shape[1] :]
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
