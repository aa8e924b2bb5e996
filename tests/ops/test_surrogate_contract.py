"""What holds for every surrogate: its oracle, finite at any ratio, exact at ratio 1, blind to what is masked."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from clipo_ops import aggregate, log_ratio

from . import oracles
from .helpers import HALF, assert_equal, assert_rounded, assert_same, gradients
from .strategies import Tokens, noise, tokens
from .surrogates import NAMES, PER_TOKEN, call, cast, oracle, ratios, reduced

every_surrogate = pytest.mark.parametrize("name", NAMES)
WEIGHTED = ["cispo_surrogate", "dis_surrogate", "dppo_surrogate", "topr_surrogate", "vespo_surrogate"]
UNPENALISED = {"kl_cov_surrogate": {"kl_weight": 0.0}, "dro_surrogate": {"tau": 0.0}}
NOT_BY_RANK = [name for name in NAMES if not name.endswith("cov_surrogate")]  # ranks of ties are rounding


@pytest.mark.parametrize("name", NOT_BY_RANK)
@given(tokens())
def test_agrees_with_the_oracle(name: str, batch: Tokens) -> None:
    loss = call(name, batch).loss
    valid = batch.mask if name == "geometric_mean_surrogate" else torch.ones_like(batch.mask)
    assert_same(loss[valid], oracle(name, batch)[valid])


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", NOT_BY_RANK)
@given(tokens())
def test_half_precision_is_rounded_once(name: str, dtype: torch.dtype, batch: Tokens) -> None:
    half = cast(batch, dtype)
    differences = ratios(batch).clamp(-1, 1).to(dtype)
    exact = half._replace(
        logprobs=half.logprobs.double(),
        old_logprobs=half.logprobs.double() - differences.double(),
        advantages=half.advantages.double(),
    )
    expected = oracle(name, exact)
    assert_rounded(call(name, half, differences).loss, expected, dtype, slack=2e-5)


@every_surrogate
@given(tokens())
def test_any_ratio_gives_a_finite_loss_and_gradient(name: str, batch: Tokens) -> None:
    assert all(result.isfinite().all() for result in reduced(name, cast(batch, torch.float32)))
    assert call(name, cast(batch, torch.float32)).ratio.isfinite().all()


@every_surrogate
@given(tokens())
def test_without_an_advantage_there_is_no_loss_and_no_gradient(name: str, batch: Tokens) -> None:
    none = batch._replace(advantages=torch.zeros_like(batch.advantages))
    value, grad = reduced(name, none, **UNPENALISED.get(name, {}))
    assert value.item() == 0
    assert grad.count_nonzero() == 0


@every_surrogate
@given(tokens())
def test_at_ratio_one_the_gradient_is_that_of_minus_advantage_times_log_probability(name: str, batch: Tokens) -> None:
    options = {"covariance_low": 1e8, "covariance_high": 1e9} if name == "clip_cov_surrogate" else {}
    same = batch._replace(old_logprobs=batch.logprobs)
    _, grad = reduced(name, same, **options)
    _, expected = reduced("policy_gradient_surrogate", same)
    assert_same(grad, expected)


@every_surrogate
@given(tokens())
def test_what_is_under_the_mask_changes_neither_value_nor_gradient(name: str, batch: Tokens) -> None:
    dirty = batch._replace(
        logprobs=torch.where(batch.mask, batch.logprobs, torch.nan),
        old_logprobs=torch.where(batch.mask, batch.old_logprobs, torch.nan),
    )

    def clean(tokens: Tokens) -> tuple[Tensor, ...]:
        """By way of `log_ratio`, which puts 0 under the mask."""

        def loss(x: Tensor) -> Tensor:
            now = tokens._replace(logprobs=x)
            per_token = call(name, now, log_ratio(x, tokens.old_logprobs, tokens.mask)).loss
            return torch.where(tokens.mask, per_token, 0)

        return gradients(loss, tokens.logprobs)

    assert_equal(clean(dirty), clean(batch))


@pytest.mark.parametrize(("name", "per_token"), [(n, False) for n in NAMES] + [(n, True) for n in PER_TOKEN])
@given(tokens(), st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_no_argument_counts_under_the_mask(name: str, per_token: bool, batch: Tokens, rubbish: float) -> None:
    """Neither a log-ratio of one's own nor advantages: both are multiplied by the gradient that comes back."""
    if per_token:
        batch = batch._replace(advantages=batch.advantages.unsqueeze(1).repeat(1, batch.mask.shape[1]))

    def results(tokens: Tokens, d: Tensor) -> tuple[Tensor, ...]:
        def loss(logprobs: Tensor, d: Tensor) -> Tensor:
            given = call(name, tokens._replace(logprobs=logprobs), d).loss
            return aggregate(given, tokens.mask) + 0 * (logprobs.nan_to_num(0, 0, 0) + d.nan_to_num(0, 0, 0)).sum()

        return gradients(loss, tokens.logprobs, d)

    counts = batch.mask if per_token else batch.mask.any(1)
    dirty = batch._replace(
        logprobs=torch.where(batch.mask, batch.logprobs, rubbish),
        advantages=torch.where(counts, batch.advantages, rubbish),
    )
    d = ratios(batch)
    assert_equal(results(dirty, torch.where(batch.mask, d, rubbish)), results(batch, d))


@pytest.mark.parametrize("unknown", ["advantages", "log_ratio"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "policy_gradient_surrogate"])
def test_what_is_not_a_number_shows_in_the_loss_and_spoils_no_other_gradient(name: str, unknown: str) -> None:
    batch = Tokens(noise(0, 2, 3), noise(1, 2, 3), noise(2, 2), torch.ones(2, 3).bool())
    d = ratios(batch)
    {"advantages": batch.advantages, "log_ratio": d}[unknown][0] = torch.nan

    def loss(logprobs: Tensor, d: Tensor) -> Tensor:
        return call(name, batch._replace(logprobs=logprobs), d).loss + 0 * (logprobs + d.nan_to_num())

    value, *grads = gradients(loss, batch.logprobs, d)
    assert value[0].isnan().all()
    assert value[1].isfinite().all()
    assert all(grad[1].isfinite().all() for grad in grads)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@every_surrogate
@given(tokens())
def test_half_precision_is_finite_where_float32_is(name: str, dtype: torch.dtype, batch: Tokens) -> None:
    half = cast(batch, dtype)
    result = call(name, half, ratios(batch).clamp(-80, 80).to(dtype))
    assert result.loss.isfinite().all()
    assert result.ratio.isfinite().all()


@pytest.mark.parametrize("name", PER_TOKEN)
@given(tokens())
def test_an_advantage_per_rollout_is_that_of_each_token(name: str, batch: Tokens) -> None:
    per_token = batch._replace(advantages=batch.advantages.unsqueeze(1).expand(batch.mask.shape))
    assert_same(tuple(call(name, per_token)), tuple(call(name, batch)))


@pytest.mark.parametrize("name", NOT_BY_RANK)
@given(tokens())
def test_rollouts_may_come_in_any_order(name: str, batch: Tokens) -> None:
    order = torch.arange(len(batch.mask)).flip(0)
    turned = Tokens(*(x[order] for x in batch))
    assert_same(tuple(call(name, turned)), tuple(x[order] for x in call(name, batch)))


@every_surrogate
def test_nothing_but_the_loss_has_a_gradient_and_never_to_the_advantages(name: str) -> None:
    batch = Tokens(
        noise(0, 2, 3).requires_grad_(), noise(1, 2, 3), noise(2, 2).requires_grad_(), torch.ones(2, 3).bool()
    )
    result = call(name, batch)
    assert result.loss.requires_grad
    assert not result.ratio.requires_grad
    assert torch.autograd.grad(result.loss.sum(), batch.advantages, allow_unused=True) == (None,)


@every_surrogate
def test_an_empty_batch_has_an_empty_result(name: str) -> None:
    for shape in ((0, 3), (2, 0)):
        empty = torch.zeros(shape)
        result = call(name, Tokens(empty, empty, torch.zeros(shape[0]), empty.bool()))
        assert result.loss.shape == result.ratio.shape == result.clipped.shape == shape


def loss_of_both(name: str, *, size: float) -> tuple[Callable[..., Tensor], tuple[Tensor, Tensor]]:
    """Loss as a function of log-probabilities and log-ratio, some of them clipped, and a point to try it at."""
    batch = Tokens(-noise(0, 3, 4).abs() - 0.1, noise(1, 3, 4), noise(2, 3), noise(3, 3, 4) > -1)

    def loss(logprobs: Tensor, d: Tensor) -> Tensor:
        given = call(name, batch._replace(logprobs=logprobs), d).loss
        return torch.where(batch.mask, given, 0) + 0 * (logprobs + d)

    return loss, (batch.logprobs.requires_grad_(), (noise(4, 3, 4) * size).requires_grad_())


# PyTorch's forward mode warns of its own deprecated parts.
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


# FIPO weighs by the log-ratio as a constant, and a weight's derivative shows in a finite difference.
@forward_mode
@pytest.mark.parametrize("name", [name for name in NAMES if name not in {*WEIGHTED, "fipo_surrogate"}])
def test_passes_gradcheck_of_the_first_and_second_order(name: str) -> None:
    for size in (0.05, 1.0):
        loss, point = loss_of_both(name, size=size)
        assert torch.autograd.gradcheck(loss, point, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(loss, point)


@forward_mode
@every_surrogate
@given(tokens())
def test_forward_mode_agrees_with_backward_mode(name: str, batch: Tokens) -> None:
    def loss(logprobs: Tensor, d: Tensor) -> Tensor:
        return torch.where(batch.mask, call(name, batch._replace(logprobs=logprobs), d).loss, 0)

    point, directions = (batch.logprobs, ratios(batch)), (noise(0, *batch.mask.shape), noise(1, *batch.mask.shape))
    _, forward = torch.func.jvp(loss, point, directions)
    _, backward = torch.func.vjp(loss, *point)
    expected = sum((g * v).sum() for g, v in zip(backward(torch.ones_like(forward)), directions, strict=True))
    assert_same(forward.sum(), expected)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {*WEIGHTED, "policy_gradient_surrogate"}])
def test_a_penalty_on_the_gradient_is_not_ignored(name: str) -> None:
    loss, point = loss_of_both(name, size=0.05)
    (gradient,) = torch.autograd.grad(loss(*point).sum(), point[1], create_graph=True)
    (curvature,) = torch.autograd.grad(gradient.square().sum(), point[1])
    assert curvature.count_nonzero() > 0


@pytest.mark.parametrize("name", WEIGHTED)
@given(tokens())
def test_a_weight_is_a_constant_to_the_gradient(name: str, batch: Tokens) -> None:
    assume(batch.logprobs.abs().min() > 1e-3)
    loss, grad = gradients(lambda x: call(name, batch._replace(logprobs=x)).loss, batch.logprobs)
    _, factors = gradients(lambda x: x, batch.logprobs)  # the cotangent
    assert_same(grad, loss / batch.logprobs * factors, rtol=1e-7)


def test_every_surrogate_stands_in_the_table_of_this_test() -> None:
    assert {name for name in vars(oracles) if name.endswith("_surrogate")} == set(NAMES)
