"""Every causal language model of transformers: it samples and learns as it does by itself, or is refused in one line.

`docs/models.md` has the results; `python tests/train/test_models.py` writes it anew.
"""

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

sys.path.insert(0, str(Path(__file__).parent))  # as a script, and under pytest's importlib mode

from tiny_models import END, VOCABULARY, model_types, tiny_model

from clipo_train.dropout import remove_dropout, train_mode
from clipo_train.errors import ConfigError
from clipo_train.policy import check_forward, score_tokens, tolerance
from clipo_train.rollout import Sampling
from clipo_train.rollout.transformers import TransformersEngine

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
TRAINED, GENERATED, NOT_BUILT = "trains", "trains; sampled by `generate`", "not tested: no tiny configuration"
LARGEST = 2e7  # weights; one with more is not tiny, whatever its fields say
PROMPTS = [[3, 5, 7, 9], [8, 6]]
REASONS = {
    "with padding on the left": "refused: padding on the left changes its log-probabilities",
    "with a later token": "refused: a token's log-probabilities depend on later tokens",
    "samples from the distribution": "refused: what it samples from is not what it scores",
    "hidden states": "refused: no hidden states, one for each token",
    "scores padded rows": "refused: it cannot score padded rows",
    "language model head": "refused: no language model head",
}


class Tokenizer:
    """As much of one as an engine needs."""

    eos_token_id, pad_token_id, chat_template = END, 0, None

    def decode(self, *_: Any, **__: Any) -> str:
        return ""


def outcome(model_type: str) -> str:
    """What becomes of a model of this type, as the docs say it; fails where it does something else."""
    try:
        model = tiny_model(model_type)
        with torch.no_grad():
            call: Any = model
            call(input_ids=torch.tensor([PROMPTS[0]]), use_cache=False)
    except Exception:  # whatever a configuration that does not fit makes of it
        return NOT_BUILT
    if model.num_parameters() > LARGEST:
        return NOT_BUILT
    tokenizer: Any = Tokenizer()
    try:
        check_forward(model)
        engine = TransformersEngine(model, tokenizer)
    except ConfigError as error:
        return refusal(str(error))
    samples_as_generate_does(model, engine)
    learns(model, engine)
    updates_without_dropout(model_type, engine)
    return TRAINED if engine.own_loop and not model._is_stateful else GENERATED


def refusal(message: str) -> str:
    assert "\n" not in message
    (reason,) = [reason for part, reason in REASONS.items() if part in message]
    return reason


def samples_as_generate_does(model: PreTrainedModel, engine: TransformersEngine) -> None:
    responses = engine.generate(PROMPTS, samples=2, sampling=Sampling(5, 0.0))
    generate: Any = model.generate
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([prompt])
        alone = generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)[0, len(prompt) :]
        for sample in (2 * row, 2 * row + 1):
            assert responses.response[sample][responses.response_mask[sample]].tolist() == alone.tolist()


def learns(model: PreTrainedModel, engine: TransformersEngine) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        generation = engine.generate(PROMPTS, samples=2, sampling=Sampling(5, 1.0))
    assert int(generation.tokens.max()) < VOCABULARY
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model.train()
    scores = score_tokens(model, generation, temperature=1.0)
    assert scores.hidden.shape[:2] == scores.logprobs.shape
    loss = -torch.where(generation.response_mask, scores.logprobs, 0).sum()
    torch.autograd.backward(loss)
    torch.optim.AdamW(model.parameters(), lr=1e-3).step()
    assert all(weight.isfinite().all() for weight in model.parameters())
    assert any(not weight.equal(before[name]) for name, weight in model.named_parameters())


def updates_without_dropout(model_type: str, engine: TransformersEngine) -> None:
    noisy = tiny_model(model_type, dropout=0.1)
    remove_dropout(noisy)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(0)
        generation = engine.generate(PROMPTS, samples=1, sampling=Sampling(3, 1.0))
        train_mode(noisy, router_noise=False)
        updated = score_tokens(noisy, generation, temperature=1.0).logprobs
        scored = score_tokens(noisy.eval(), generation, temperature=1.0).logprobs
    assert float((updated - scored).abs().mean()) < tolerance(noisy)


def documented() -> dict[str, str]:
    return dict(re.findall(r"^\| `(.*?)` \| (.*?) \|$", PAGE.read_text(), flags=re.MULTILINE))


def test_the_page_lists_every_model_type() -> None:
    assert list(documented()) == model_types()
    assert sum(result in (TRAINED, GENERATED) for result in documented().values()) >= 100


@pytest.mark.filterwarnings("ignore")  # a model's own, about its configuration
@pytest.mark.parametrize("model_type", [name for name, result in documented().items() if result != NOT_BUILT])
def test_a_model_is_what_the_page_says(model_type: str) -> None:
    assert outcome(model_type) == documented()[model_type]


def main() -> None:
    """Writes the page's table anew."""
    warnings.simplefilter("ignore")
    head, _, _ = PAGE.read_text().partition("| model type |")
    rows = "".join(f"| `{name}` | {outcome(name)} |\n" for name in model_types())
    PAGE.write_text(f"{head}| model type | result |\n|---|---|\n{rows}")


if __name__ == "__main__":
    main()
