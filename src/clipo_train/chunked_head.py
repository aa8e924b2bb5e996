"""The language model's head without logits of all tokens x vocabulary."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from clipo_ops import LinearLogprobs, linear_token_logprobs
from clipo_train.errors import ConfigError


class LogitTransform(NamedTuple):
    """What a model does to the output of its head: softcap * tanh(scale * output / softcap).

    Attributes:
        scale: Granite's, Cohere's.
        softcap: Gemma 2's, or None.
        neutral: Attributes that switch it off: whose, their name, and the value.
    """

    scale: float
    softcap: float | None
    neutral: list[tuple[Any, str, float | None]]

    def __call__(self, output: Tensor) -> Tensor:
        output = output * self.scale
        return output if self.softcap is None else self.softcap * torch.tanh(output / self.softcap)

    @contextmanager
    def off(self) -> Iterator[None]:
        """In the block, the model's logits are its head's output as it is."""
        before = [getattr(owner, name) for owner, name, _ in self.neutral]
        try:
            for owner, name, value in self.neutral:
                setattr(owner, name, value)
            yield
        finally:
            for (owner, name, _), value in zip(self.neutral, before, strict=True):
                setattr(owner, name, value)


def logit_transform(model: PreTrainedModel) -> LogitTransform:
    """A model's transform, by the names that transformers has for it."""
    config = model.config.get_text_config()
    fields = {"logit_scale": 1.0, "logits_scaling": 1.0, "final_logit_softcapping": None}
    owned = [(owner, name) for owner in (config, model) for name in fields if getattr(owner, name, None) is not None]
    values = {name: getattr(owner, name) for owner, name in owned}
    return LogitTransform(
        values.get("logit_scale", 1.0) / values.get("logits_scaling", 1.0),
        values.get("final_logit_softcapping"),
        [(owner, name, fields[name]) for owner, name in owned],
    )


class ChunkedHead(nn.Linear):
    """A model's last layer that can also say how likely tokens are, a chunk of vocabulary entries at a time.

    It has the parameters of the layer whose place it takes, and gives the same logits, but for a `scoring` block: there
    its output has log-probability and entropy of the given tokens in place of the logits. The model's own forward calls
    it, so that whatever wraps the model gathers its weight and sees its gradient as of any other layer.
    """

    def __init__(self, layer: nn.Linear, transform: LogitTransform) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.transform = transform
        self.train(layer.training)
        self._wanted: tuple[Tensor, float] | None = None

    @contextmanager
    def scoring(self, token_ids: Int[Tensor, "rollouts tokens"], temperature: float) -> Iterator[None]:
        """In the block, `forward` expects the hidden states before each of the tokens, and one more."""
        self._wanted = token_ids, temperature
        try:
            with self.transform.off():
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
            logit_scale=self.transform.scale,
            softcap=self.transform.softcap,
        )
        return torch.stack(scores, -1)


def unpack(output: Float[Tensor, "rollouts tokens two"]) -> LinearLogprobs:
    """What a `ChunkedHead` has put into the place of the logits."""
    return LinearLogprobs(*output.unbind(-1))


@torch.no_grad()
def chunk_head(model: PreTrainedModel) -> None:
    """Puts a `ChunkedHead` into the place of the model's head.

    Raises:
        ConfigError: The head is no linear layer, or its output becomes the model's logits by another way than a scale
            (Granite, Cohere) or a soft cap (Gemma 2).
    """
    name = type(model).__name__
    head: Any = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise ConfigError(
            f"model.chunked_head: expected a model whose head is a linear layer, got {name} with {type(head).__name__}"
        )
    transform = logit_transform(model)
    mark = torch.linspace(-100, 100, head.out_features, device=head.weight.device).to(head.weight.dtype)
    logits = _logits_of_output(model, head, mark)
    with transform.off():
        plain = _logits_of_output(model, head, mark)
    bound = 8 * torch.finfo(mark.dtype).eps
    known = torch.allclose(logits.float(), transform(mark.float()), rtol=bound, atol=bound)
    if not known or not plain.equal(mark.to(plain.dtype)):
        raise ConfigError(
            f"model.chunked_head: expected a model whose logits are its head's, scaled or soft-capped, got {name}"
        )
    model.set_output_embeddings(ChunkedHead(head, transform))


def _logits_of_output(model: PreTrainedModel, head: nn.Linear, output: Tensor) -> Tensor:
    """What the model makes of this output of its head."""
    handle = head.register_forward_hook(lambda _module, _inputs, own: output.to(own.dtype).expand_as(own))
    try:
        tokens = torch.zeros(1, 1, dtype=torch.long, device=output.device)
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits[0, 0]
    finally:
        handle.remove()
    return logits
