"""What is logged."""

import math
from itertools import combinations

from torch import Tensor

from ._common import mean, members
from .contrastive import cosine


def group_similarity(embeddings: Tensor, success: Tensor, groups: Tensor) -> tuple[float, float]:
    vectors, right = embeddings.tolist(), success.tolist()
    cosines: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for group in members(groups):
        for i, j in combinations(group, 2):
            cosines[right[i] + right[j]].append(cosine(vectors[i], vectors[j]))
    return mean(cosines[2] or [math.nan]), mean(cosines[1] or [math.nan])
