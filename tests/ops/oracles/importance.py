"""Log-ratios."""

from itertools import product

import torch
from torch import Tensor


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, *, limit: float = 20.0) -> Tensor:
    result = torch.zeros(mask.shape, dtype=torch.float64)
    for i, t in product(*map(range, mask.shape)):
        if mask[i, t]:
            result[i, t] = max(-limit, min(limit, logprobs[i, t].item() - old_logprobs[i, t].item()))
    return result
