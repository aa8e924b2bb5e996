"""The linear head in tiles: what full logits give, in value and gradient, whatever the tiles, without the logits."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import clipo_ops._kernels.linear_tiles as linear_tiles
from clipo_ops import linear_token_logprobs, token_entropy, token_logprobs

from . import oracles
from .helpers import HALF, assert_equal, assert_nearly_equal, assert_same, gradients
from .strategies import SEEDS, TEMPERATURES, noise

CHUNKS = st.sampled_from([1, 3, 5, 4096])
KEPT = st.sampled_from([0.0, 0.5, 1.0])

# torch itself scripts its rules for forward mode at their first use.
forward_ad = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Head:
    """Hidden states of 2 rollouts and 3 tokens, a head of 5 vocabulary entries, and tokens."""

    def __init__(self, seed: int, size: float = 1.0, dtype: torch.dtype = torch.float64) -> None:
        self.hidden = (noise(seed, 2, 3, 4) * size).to(dtype)
        self.weight = noise(seed + 1, 5, 4).to(dtype)
        self.bias = noise(seed + 2, 5).to(dtype)
        self.token_ids = noise(seed + 3, 2, 3, 5).argmax(-1)

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.hidden, self.weight, self.bias

    def __call__(self, hidden: Tensor, weight: Tensor, bias: Tensor, **options: Any) -> Tensor:
        return torch.stack(linear_token_logprobs(hidden, weight, self.token_ids, bias=bias, **options))

    def full(
        self, hidden: Tensor, weight: Tensor, bias: Tensor, *, softcap: float | None = None, **options: Any
    ) -> Tensor:
        """The plain formulation."""
        logits = options.pop("logit_scale", 1.0) * (hidden @ weight.mT + bias)
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        return torch.stack([token_logprobs(logits, self.token_ids, **options), token_entropy(logits, **options)])


@pytest.fixture(params=[2, 4096], ids=lambda count: f"{count} tokens a tile")
def _rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_tiles, "TILE_TOKENS", request.param)


@given(SEEDS, st.sampled_from([0.0, 1.0, 50.0, 1e4]), TEMPERATURES, CHUNKS)
def test_agrees_with_the_oracle(seed: int, size: float, temperature: float, chunk_size: int) -> None:
    head = Head(seed, size)
    expected = oracles.linear_token_logprobs(
        head.hidden, head.weight, head.token_ids, bias=head.bias, temperature=temperature
    )
    assert_same(head(*head.inputs, temperature=temperature, chunk_size=chunk_size), torch.stack(expected), atol=1e-8)


@pytest.mark.usefixtures("_rows")
@given(SEEDS, TEMPERATURES, CHUNKS, KEPT)
def test_value_and_gradients_are_those_of_full_logits(
    seed: int, temperature: float, chunk_size: int, keep: float
) -> None:
    head = Head(seed)
    options = {"temperature": temperature, "chunk_size": chunk_size, "keep_logits": keep}
    actual = gradients(lambda *x: head(*x, **options), *head.inputs)
    assert_same(actual, gradients(lambda *x: head.full(*x, temperature=temperature), *head.inputs), atol=1e-8)


@pytest.mark.usefixtures("_rows")
@given(SEEDS, TEMPERATURES, CHUNKS, KEPT, st.sampled_from([0.5, 2.0, 30.0, None]), st.sampled_from([0.0625, 1.0, 3.0]))
def test_capped_and_scaled_logits(
    seed: int, temperature: float, chunk_size: int, keep: float, softcap: float | None, logit_scale: float
) -> None:
    head = Head(seed)
    model = {"temperature": temperature, "softcap": softcap, "logit_scale": logit_scale}
    tiles = {"chunk_size": chunk_size, "keep_logits": keep}
    expected = gradients(lambda *x: head.full(*x, **model), *head.inputs)
    assert_same(gradients(lambda *x: head(*x, **model, **tiles), *head.inputs), expected, atol=1e-8)
    values = oracles.linear_token_logprobs(head.hidden, head.weight, head.token_ids, bias=head.bias, **model)
    assert_same(expected[0], torch.stack(values), atol=1e-8)


@pytest.mark.parametrize("output", [0, 1], ids=["logprobs", "entropy"])
@given(SEEDS)
def test_either_result_may_be_used_alone(output: int, seed: int) -> None:
    head = Head(seed)
    actual = gradients(lambda *x: head(*x, chunk_size=3)[output], *head.inputs)
    assert_same(actual, gradients(lambda *x: head.full(*x)[output], *head.inputs))


def test_passes_gradcheck() -> None:
    head = Head(0)
    leaves = [x.requires_grad_() for x in head.inputs]

    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        hidden, weight, bias = inputs
        options = {"temperature": 0.7, "chunk_size": 3, "softcap": 1.5, "logit_scale": 0.8}
        return tuple(linear_token_logprobs(hidden, weight, head.token_ids, bias=bias, **options))

    assert torch.autograd.gradcheck(function, leaves, check_undefined_grad=False)


@pytest.mark.parametrize("frozen", [0, 1, 2], ids=["hidden", "weight", "bias"])
def test_a_frozen_input_gets_no_gradient_and_changes_no_other(frozen: int) -> None:
    head = Head(0)
    everything = [x.clone().requires_grad_() for x in head.inputs]
    some = [x.clone().requires_grad_(i != frozen) for i, x in enumerate(head.inputs)]
    for leaves in (everything, some):
        head(*leaves, chunk_size=3).sum().backward()
    assert some[frozen].grad is None
    assert_same(
        [x.grad for i, x in enumerate(some) if i != frozen], [x.grad for i, x in enumerate(everything) if i != frozen]
    )


@given(SEEDS, st.integers(0, 4), CHUNKS)
def test_a_word_that_cannot_occur_counts_for_nothing_in_value_and_gradient(
    seed: int, word: int, chunk_size: int
) -> None:
    head = Head(seed)
    barred = head.bias.clone()
    barred[word] = -torch.inf
    head.token_ids = torch.where(head.token_ids == word, (word + 1) % 5, head.token_ids)
    actual = gradients(lambda *x: head(*x, chunk_size=chunk_size), head.hidden, head.weight, barred)
    assert_same(actual, gradients(head.full, head.hidden, head.weight, barred))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@given(SEEDS, CHUNKS)
def test_half_precision_gives_float32_of_logits_in_half_precision(
    dtype: torch.dtype, seed: int, chunk_size: int
) -> None:
    head = Head(seed, dtype=dtype)
    result = linear_token_logprobs(head.hidden, head.weight, head.token_ids, chunk_size=chunk_size)
    assert {x.dtype for x in result} == {torch.float32}
    logits = (head.hidden @ head.weight.mT).double()
    expected = token_logprobs(logits, head.token_ids), token_entropy(logits)
    torch.testing.assert_close(torch.stack(result).double(), torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_gradients_in_half_precision_are_near_those_of_float64(dtype: torch.dtype) -> None:
    head = Head(0, dtype=dtype)
    actual = gradients(lambda *x: head(*x, chunk_size=2), *head.inputs)[1:]
    expected = gradients(head.full, *(x.double() for x in head.inputs))[1:]
    for grad, exact in zip(actual, expected, strict=True):
        assert grad.dtype == dtype
        assert (grad - exact).norm() <= 4 * torch.finfo(dtype).eps * exact.norm()


def test_a_weight_of_higher_precision_is_used_as_it_is() -> None:
    head = Head(0, dtype=torch.float32)
    low = head.hidden.bfloat16()
    assert_nearly_equal(head(low, head.weight, head.bias), head(low.float(), head.weight, head.bias))


def test_autocast_changes_no_gradient() -> None:
    head = Head(0, dtype=torch.float32)
    expected = gradients(head, *head.inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = gradients(head, *head.inputs)
    assert_nearly_equal(actual, expected)


def test_padding_that_is_no_token_has_log_probability_nan_and_can_be_masked() -> None:
    head = Head(0)
    head.token_ids[:, 2] = -100
    result = linear_token_logprobs(head.hidden, head.weight, head.token_ids, chunk_size=2)
    assert result.logprobs.isnan().tolist() == [[False, False, True]] * 2
    mask = head.token_ids >= 0
    grads = gradients(lambda *x: torch.where(mask, head(*x)[0], 0), *head.inputs)
    assert all(grad.isfinite().all() for grad in grads)
    assert grads[1][:, 2].count_nonzero() == 0


@pytest.mark.parametrize("tokens", [0, 1])
def test_few_tokens(tokens: int) -> None:
    hidden, weight = noise(0, 2, tokens, 4), noise(1, 5, 4)
    values = gradients(lambda *x: linear_token_logprobs(*x, torch.zeros(2, tokens).long()).logprobs, hidden, weight)
    assert values[0].shape == (2, tokens)
    assert values[2].shape == weight.shape


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_logits_have_a_finite_value_and_gradient(size: float) -> None:
    hidden, weight = torch.tensor([[[size]]]), torch.tensor([[1.0], [-1.0], [0.0]])
    function = lambda *x: torch.stack(linear_token_logprobs(*x, torch.tensor([[1]]), chunk_size=1))  # noqa: E731
    assert all(result.isfinite().all() for result in gradients(function, hidden, weight))


@pytest.mark.filterwarnings("ignore:.*Profiler clears events:UserWarning")  # of torch 2.11
def test_logits_are_never_held() -> None:
    """The largest buffer of a step is a tile or a gradient, whatever the number of tokens and words."""
    hidden, weight = torch.randn(4, 64, 8, requires_grad=True), torch.randn(4096, 8, requires_grad=True)
    token_ids = torch.zeros(4, 64).long()
    with torch.profiler.profile(profile_memory=True) as profile:
        sum(x.sum() for x in linear_token_logprobs(hidden, weight, token_ids, chunk_size=128)).backward()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert weight.numel() * 4 <= largest < 256 * 4096 * 4 / 4


def test_logits_are_kept_only_for_a_gradient_and_survive_it() -> None:
    head = Head(0)
    shapes = []

    def pack(tensor: Tensor) -> Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    def saved(keep: float) -> list[tuple[int, ...]]:
        shapes.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            head(head.hidden.clone().requires_grad_(), head.weight, head.bias, chunk_size=2, keep_logits=keep)
        return shapes.copy()

    assert [(6, words) in saved(keep) for words, keep in ((0, 0.3), (2, 0.5), (4, 0.9), (5, 1.0))] == [True] * 4
    leaf = head.hidden.clone().requires_grad_()
    value = head(leaf, head.weight, head.bias, chunk_size=2, keep_logits=1.0).sum()
    first, again = (torch.autograd.grad(value, leaf, retain_graph=True) for _ in range(2))
    assert_equal(first, again)


def forward_mode(function: Any, hidden: Tensor) -> Tensor:
    return torch.func.jvp(function, (hidden,), (torch.ones_like(hidden),))[1]


@forward_ad
@pytest.mark.parametrize("derivative", [forward_mode, lambda f, x: torch.func.jacfwd(f)(x)], ids=["jvp", "jacfwd"])
@pytest.mark.parametrize("output", [0, 1], ids=["logprobs", "entropy"])
def test_forward_mode_raises(derivative: Any, output: int) -> None:
    head = Head(0)
    with pytest.raises(NotImplementedError, match=r"linear_token_logprobs has no forward mode derivative"):
        derivative(lambda x: head(x, head.weight, head.bias)[output], head.hidden)


@forward_ad
def test_forward_mode_raises_whichever_operand_has_a_tangent() -> None:
    head = Head(0)
    for place, operand in enumerate(head.inputs):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(operand, torch.ones_like(operand))
            inputs = [dual if i == place else x for i, x in enumerate(head.inputs)]
            with pytest.raises(NotImplementedError, match="forward mode"):
                head(*inputs)


def test_a_second_derivative_raises() -> None:
    head = Head(0)
    leaf = head.hidden.requires_grad_()
    loss = head(*head.inputs).sum()
    (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"linear_token_logprobs has no second derivative"):
        (loss + grad.square().sum()).backward()


@forward_ad
def test_second_derivatives_by_functorch_raise() -> None:
    head = Head(0)
    with pytest.raises((NotImplementedError, RuntimeError)):
        torch.func.hessian(lambda x: head(x, head.weight, head.bias).sum())(head.hidden)
