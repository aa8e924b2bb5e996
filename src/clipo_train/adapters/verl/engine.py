"""verl's FSDP engine, whose scoring pass also gives each response's mean hidden state."""

from typing import Any

import torch
from jaxtyping import Int
from tensordict import TensorDict
from torch import Tensor, nn
from verl.utils import tensordict_utils
from verl.workers.engine import EngineRegistry, FSDPEngineWithLMHead

from clipo_ops import segment_mean_pool
from clipo_train.adapters.verl.selfcheck import MODEL_TYPE

POOL = "clipo_pool"
"""Asks for pooled hidden states, among the facts that go with a batch."""
POOLED = "pooled_hidden"
"""The field that holds them."""


@EngineRegistry.register(model_type=MODEL_TYPE, backend=["fsdp", "fsdp2"], device=["cuda", "npu", "cpu"])
class ClipoEngine(FSDPEngineWithLMHead):
    """`FSDPEngineWithLMHead`, with `pooled_hidden` in its output where the batch has `clipo_pool` set.

    A hook on the backbone takes the last layer's hidden states, after the final norm, from the pass that gives the
    log-probabilities; sequence parallelism, packed batches and LoRA included. Other passes do not notice it.
    """

    def __init__(self, model_config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(model_config, *args, **kwargs)
        model_config.model_type = "language_model"  # our name has found this engine; verl builds the model by its own
        self._pooling = False
        self._hidden: Tensor | None = None

    def _build_module(self) -> nn.Module:
        module: Any = super()._build_module()
        module.base_model.register_forward_hook(self._keep)
        return module  # type: ignore[no-any-return]

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if self._pooling:
            self._hidden = output[0].detach()

    def forward_step(self, micro_batch: TensorDict, *args: Any, **kwargs: Any) -> Any:
        self._pooling = bool(tensordict_utils.get_non_tensor_data(micro_batch, POOL, default=False))
        try:
            return super().forward_step(micro_batch, *args, **kwargs)
        finally:
            self._pooling, self._hidden = False, None

    def prepare_model_outputs(
        self, output: Any, output_args: dict[str, Any], micro_batch: TensorDict, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        outputs: dict[str, Any] = super().prepare_model_outputs(output, output_args, micro_batch, *args, **kwargs)
        if self._hidden is not None:
            states = self._packed(self._hidden, micro_batch["input_ids"], output_args)
            segments = response_segments(micro_batch["input_ids"], micro_batch["response_mask"])
            outputs[POOLED] = segment_mean_pool(states.float(), segments, num_segments=len(micro_batch))
        return outputs

    def _packed(self, hidden: Tensor, input_ids: Any, output_args: dict[str, Any]) -> Tensor:
        """Hidden states of all tokens of the micro-batch, one sequence after another."""
        if "pad_size" in output_args:  # one row of them, shared out among sequence-parallel ranks, padded at the end
            packed: Tensor = self._gather_and_unpad_packed(hidden.squeeze(0), output_args["pad_size"])
            return packed
        lengths = input_ids.offsets().diff()
        return hidden[torch.arange(hidden.shape[1], device=hidden.device) < lengths.unsqueeze(1)]


def response_segments(input_ids: Any, response_mask: Any) -> Int[Tensor, " tokens"]:
    """For each token of sequences packed one after another, its rollout; -1 for prompts and what the mask leaves out.

    Args:
        input_ids: Nested: prompt and response of each rollout.
        response_mask: Nested: 1 at the tokens of its response that count. A response ends its sequence.
    """
    ends, responses = input_ids.offsets()[1:], response_mask.offsets()
    lengths = responses.diff()
    rollouts = torch.repeat_interleave(torch.arange(len(lengths), device=ends.device), lengths)
    within = torch.arange(len(rollouts), device=ends.device) - responses[rollouts]
    segments = torch.full_like(input_ids.values(), -1)
    segments[ends[rollouts] - lengths[rollouts] + within] = torch.where(response_mask.values().bool(), rollouts, -1)
    return segments
