"""A policy of 108k parameters for the arithmetic test bed, and its supervised warm start.

The warm start shows demonstrations of mixed quality (`arithmetic.QUALITIES`), so that RL begins with a policy that
samples right and wrong answers in every group, some of the right ones by a wrong way.
"""

import random
from collections.abc import Callable, Sequence

import torch
from tokenizers import Tokenizer, decoders, models
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from clipo_train.testbed.arithmetic import CHARACTERS, OPERATIONS, demonstration, random_prompt

_PAD, _EOS = "<pad>", "<eos>"
_IDS = {character: index for index, character in enumerate([*CHARACTERS, _PAD, _EOS])}
_IGNORED = -100  # a label that has no part in the loss

SAME_SLIP = "arithmetic:same-slip"
"""The `model.path` of a policy whose demonstrations have one kind of slip."""

_STEPS = 480
_BATCH, _DRILL_BATCH = 64, 192
_LEARNING_RATE = 5e-3
_WARM_UP = 30
_DRILLS_UNTIL, _DECAY_FROM = 0.7, 0.6  # shares of all steps


def is_test_bed(path: str) -> bool:
    """Whether a `model.path` means the policy of this module."""
    return path in ("arithmetic", SAME_SLIP)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character, 17 in all, padding on the left."""
    tokenizer = Tokenizer(models.BPE(vocab=_IDS, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_EOS, padding_side="left", model_max_length=128
    )


def build_model(seed: int) -> Qwen2ForCausalLM:
    """The untrained policy; the global random state is left as it is."""
    config = Qwen2Config(
        vocab_size=len(_IDS),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=_IDS[_PAD],
        eos_token_id=_IDS[_EOS],
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def warm_start(
    seed: int,
    *,
    steps: int = _STEPS,
    same_slip: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    """Builds the policy and trains it on demonstrations.

    Every other step of the first 70 % is a drill in single operations, without which the rest is not learnt.

    Args:
        seed: Of weights and demonstrations; the global random state is left as it is.
        steps: Optimizer steps.
        same_slip: All slips of the demonstrations are one; see `arithmetic.demonstration`.
        progress: Called with (steps done, steps in all).

    Returns:
        The policy, in evaluation mode, and its tokenizer.
    """
    rng = random.Random(seed)  # noqa: S311 - demonstrations, no secret
    model = build_model(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    for step in range(steps):
        drill = step % 2 == 1 and step < _DRILLS_UNTIL * steps
        tokens, labels = _drills(rng) if drill else _demonstrations(rng, same_slip)
        logits = model(input_ids=tokens, use_cache=False).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if progress is not None:
            progress(step + 1, steps)
    model.train(False)
    return model, build_tokenizer()


def _rate(step: int, steps: int) -> float:
    """Learning rate over its peak: a short rise, a plateau, a linear decay to 0."""
    left = (steps - step) / (steps * (1 - _DECAY_FROM))
    return min(1.0, (step + 1) / _WARM_UP, left)


def _demonstrations(rng: random.Random, same_slip: bool) -> tuple[Tensor, Tensor]:
    prompts = [random_prompt(rng, rng.randint(OPERATIONS, OPERATIONS + 2)) for _ in range(_BATCH)]
    return _batch(prompts, [demonstration(rng, prompt, same_slip=same_slip) for prompt in prompts])


def _drills(rng: random.Random) -> tuple[Tensor, Tensor]:
    """Single operations on any digit, as they come up in the middle of a response."""
    prompts, responses = [], []
    for _ in range(_DRILL_BATCH):
        left, sign, right = rng.randrange(10), rng.choice("+-"), rng.randint(1, 4)
        result = (left + (right if sign == "+" else -right)) % 10
        prompts.append(f"{left}{sign}{right}=")
        responses.append(f"{left}{sign}{right}={result}#{result}")
    return _batch(prompts, responses)


def _batch(prompts: Sequence[str], responses: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokens and labels, padded on the right; only responses and their end are learnt."""
    texts = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    width = max(len(text) for text in texts) + 1
    tokens = torch.full((len(texts), width), _IDS[_PAD])
    labels = torch.full((len(texts), width), _IGNORED)
    for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        ids = torch.tensor([_IDS[character] for character in text] + [_IDS[_EOS]])
        tokens[row, : len(ids)] = ids
        labels[row, len(prompt) : len(ids)] = ids[len(prompt) :]
    return tokens, labels
