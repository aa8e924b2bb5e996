"""The language model's head without logits of all tokens x vocabulary."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from clipo_ops import LinearLogprobs, linear_token_logprobs
from clipo_train.errors import ConfigError


class ChunkedHead(nn.Linear):
    """A model's last layer that can also say how likely tokens are, a chunk of words at a time.

    It has the parameters of the layer whose place it takes, and gives the same logits, but for a `scoring` block: there
    its output has log-probability and entropy of the given tokens in place of the logits. The model's own forward calls
    it, so that whatever wraps the model gathers its weight and sees its gradient as of any other layer.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.train(layer.training)
        self._wanted: tuple[Tensor, float] | None = None

    @contextmanager
    def scoring(self, token_ids: Int[Tensor, "rollouts tokens"], temperature: float) -> Iterator[None]:
        """In the block, `forward` expects the hidden states before each of the tokens, and one more."""
        self._wanted = token_ids, temperature
        try:
            yield
        finally:
            self._wanted = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's name
        """Logits, or within `scoring` (log-probability, entropy) of each token."""
        if self._wanted is None:
            return super().forward(input)
        token_ids, temperature = self._wanted
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.weight.dtype
        scores = linear_token_logprobs(
            input[:, -token_ids.shape[1] - 1 : -1].to(dtype),
            self.weight.to(dtype),
            token_ids,
            bias=None if self.bias is None else self.bias.to(dtype),
            temperature=temperature,
        )
        return torch.stack(scores, -1)


def unpack(output: Float[Tensor, "rollouts tokens two"]) -> LinearLogprobs:
    """What a `ChunkedHead` has put into the place of the logits."""
    return LinearLogprobs(*output.unbind(-1))


@torch.no_grad()
def chunk_head(model: PreTrainedModel) -> None:
    """Puts a `ChunkedHead` into the place of the model's head.

    Raises:
        ConfigError: The head is no linear layer, or its output is not the model's logits, as where these are scaled
            (Granite, Cohere) or capped (Gemma 2).
    """
    name = type(model).__name__
    head: Any = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise ConfigError(
            f"model.chunked_head: expected a model whose head is a linear layer, got {name} with {type(head).__name__}"
        )
    mark = torch.linspace(-100, 100, head.out_features, device=head.weight.device)
    handle = head.register_forward_hook(lambda _module, _inputs, output: mark.to(output.dtype).expand_as(output))
    try:
        logits = model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=mark.device), use_cache=False).logits
    finally:
        handle.remove()
    if not logits[0, 0].equal(mark.to(head.weight.dtype).to(logits.dtype)):
        raise ConfigError(
            f"model.chunked_head: expected a model whose logits are what its head puts out, got {name}, "
            f"which scales or "
            "caps them"
        )
    model.set_output_embeddings(ChunkedHead(head))
