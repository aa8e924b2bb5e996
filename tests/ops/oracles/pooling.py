"""Hidden states to one vector."""

import math
from collections.abc import Callable

from torch import Tensor

from ..examples import case
from ._common import chosen, mean, members, tensor


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    return _pool(hidden, mask, mean)


def last_token_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    return _pool(hidden, mask, lambda values: values[-1] if values else 0.0)


def max_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    return _pool(hidden, mask, lambda values: max(values, default=0.0))


def token_pool(hidden: Tensor, positions: Tensor) -> Tensor:
    rows, none = hidden.tolist(), [0.0] * hidden.shape[2]
    return tensor([none if place < 0 else row[place] for row, place in zip(rows, positions.tolist(), strict=True)])


def weighted_pool(hidden: Tensor, weights: Tensor) -> Tensor:
    result = []
    for columns, row in zip(hidden.transpose(1, 2).tolist(), weights.tolist(), strict=True):
        used = [w > 0 for w in row]
        shares = [w / math.fsum(row) for w in chosen(row, used)]
        pairs = [zip(shares, chosen(column, used), strict=True) for column in columns]
        result.append([math.fsum(share * value for share, value in pair) for pair in pairs])
    return tensor(result)


def segment_mean_pool(hidden: Tensor, segment_ids: Tensor, *, num_segments: int) -> Tensor:
    ids, columns = segment_ids.tolist(), hidden.T.tolist()
    return tensor([[mean(chosen(c, [i == own for i in ids])) for c in columns] for own in range(num_segments)])


def center_by_group(embeddings: Tensor, groups: Tensor) -> Tensor:
    result = embeddings.tolist()
    for group in members(groups):
        for k in range(embeddings.shape[1]):
            average = mean([embeddings[i, k].item() for i in group])
            for i in group:
                result[i][k] -= average
    return tensor(result)


def _pool(hidden: Tensor, mask: Tensor, to_one: Callable[[list[float]], float]) -> Tensor:
    rollouts = zip(hidden.transpose(1, 2).tolist(), mask.tolist(), strict=True)
    return tensor([[to_one(chosen(column, row)) for column in columns] for columns, row in rollouts])


CASES = [
    case("mean_pool", "hidden mask"),
    case("last_token_pool", "hidden mask"),
    case("max_pool", "hidden mask"),
    case("weighted_pool", "hidden weights"),
    case("token_pool", "hidden positions"),
    case("segment_mean_pool", "hidden=packed segment_ids", num_segments=5),
    case("center_by_group", "embeddings groups=layout"),
    case("center_by_group", "embeddings groups=ordered"),
]


# Laying ids out reads the number of groups from the device: eager mode only.
EAGER_CASES = [
    case("center_by_group", "embeddings groups=ids"),
]

# Function, argument, bad values, and a word of what it wants.
BAD_VALUES = [
    ("segment_mean_pool", "num_segments", [0, -1], "at least 1"),
]
