"""Log-ratios."""

from itertools import product

import torch
from torch import Tensor

from ._common import chosen, mean, tensor


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, *, limit: float = 20.0) -> Tensor:
    result = torch.zeros(mask.shape, dtype=torch.float64)
    for i, t in product(*map(range, mask.shape)):
        if mask[i, t]:
            result[i, t] = max(-limit, min(limit, logprobs[i, t].item() - old_logprobs[i, t].item()))
    return result


def sequence_log_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    return tensor([mean(chosen(*row)) for row in zip(log_ratio.tolist(), mask.tolist(), strict=True)])


def gspo_token_log_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """The value alone."""
    rows = zip(sequence_log_ratio(log_ratio, mask).tolist(), mask.tolist(), strict=True)
    return tensor([[value if counts else 0.0 for counts in row] for value, row in rows])
