"""Two real processes: a batch in uneven shards has the value and the gradient of one process."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from clipo_ops import contrastive_anchors, contrastive_loss, gather_rollouts, supcon_out

from . import oracles
from .strategies import noise

RANKS, SIZES = 2, [5, 7]  # groups of three: the second one lies on both ranks
IDS = torch.arange(12) // 3
SUCCESS = torch.arange(12) % 3 < 2


def hidden() -> Tensor:
    return noise(0, 12, 4)


def head() -> torch.nn.Linear:
    linear = torch.nn.Linear(4, 3, bias=False).double()
    with torch.no_grad():
        linear.weight.copy_(noise(1, 3, 4))
    return linear


def loss(embeddings: Tensor, success: Tensor, ids: Tensor, scope: Any) -> Tensor:
    return contrastive_loss(embeddings, success, ids, objective=supcon_out, scope=scope)


def one_process(scope: str) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and its gradients by embeddings and by the head's weights."""
    linear = head()
    embeddings = linear(hidden())
    value = loss(embeddings, SUCCESS, IDS, scope)
    return value.detach(), *torch.autograd.grad(value, [embeddings, linear.weight])


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS)
    own = slice(sum(SIZES[:rank]), sum(SIZES[: rank + 1]))
    success, ids = gather_rollouts(SUCCESS[own]), gather_rollouts(IDS[own])
    results: dict[str, Any] = {"success": success, "ids": ids, "half": gather_rollouts(hidden()[own].bfloat16())}
    for scope in ("group", "batch"):
        linear = DistributedDataParallel(head())
        embeddings = linear(hidden()[own])
        embeddings.retain_grad()
        value = loss(gather_rollouts(embeddings), success, ids, scope)
        value.backward()
        results[scope] = value.detach(), embeddings.grad, linear.module.weight.grad
        leaf = head()(hidden()[own]).detach().requires_grad_()
        each = contrastive_loss(
            gather_rollouts(leaf), success, ids, objective=supcon_out, scope=scope, reduction="none"
        )
        part = each[own].sum() / contrastive_anchors(success, ids, scope=scope).sum()
        part.backward()
        results[scope + ", own anchors"] = part.detach(), leaf.grad
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=RANKS)
    return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(RANKS)]


def test_one_process_gets_its_own_rollouts() -> None:
    values = torch.randn(3, 2)
    assert gather_rollouts(values) is values


def test_every_rank_gets_the_rollouts_of_all_in_order(ranks: list[dict[str, Any]]) -> None:
    parts = hidden().bfloat16().split(SIZES)
    for results in ranks:
        assert torch.equal(results["success"], SUCCESS)
        assert torch.equal(results["ids"], IDS)
        assert torch.equal(results["half"], oracles.gather_rollouts(*parts))


@pytest.mark.parametrize("scope", ["group", "batch"])
def test_a_loss_on_every_rank_gives_each_rank_the_gradient_times_the_number_of_ranks(
    ranks: list[dict[str, Any]], scope: str
) -> None:
    value, by_embeddings, by_weights = one_process(scope)
    for results in ranks:
        torch.testing.assert_close(results[scope][0], value)
        torch.testing.assert_close(results[scope][2], by_weights)  # DistributedDataParallel averages
    torch.testing.assert_close(torch.cat([results[scope][1] for results in ranks]), RANKS * by_embeddings)


@pytest.mark.parametrize("scope", ["group", "batch"])
def test_losses_of_own_anchors_add_up_to_the_one_of_one_process(ranks: list[dict[str, Any]], scope: str) -> None:
    value, by_embeddings, _ = one_process(scope)
    values, grads = zip(*(results[scope + ", own anchors"] for results in ranks), strict=True)
    torch.testing.assert_close(torch.stack(values).sum(), value)
    torch.testing.assert_close(torch.cat(grads), by_embeddings)
