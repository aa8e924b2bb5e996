"""CLIPO inside TRL: its trainers as they are, with the contrastive reward as one more reward function."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from clipo_ops import mean_pool
from clipo_train.config import ClipoConfig
from clipo_train.config.files import read_clipo
from clipo_train.errors import ConfigError
from clipo_train.head import ClipoHead

try:
    import trl
    from accelerate.utils import gather, is_peft_model
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
    from trl.models.utils import disable_gradient_checkpointing
    from trl.trainer.base_trainer import _BaseTrainer
except ImportError as error:
    raise ImportError(f"clipo_train.adapters.trl: expected TRL, got {error}; pip install 'clipo[trl]'") from error

TESTED = "1.16"
"""The minor version of TRL that this is tested with."""

HEAD_FILE = "clipo_head.pt"
"""The head's state, in each of TRL's checkpoints."""

if trl.__version__.split(".")[:2] != TESTED.split("."):
    warnings.warn(f"clipo_train.adapters.trl: tested with TRL {TESTED}.*, got {trl.__version__}", stacklevel=2)


@dataclass
class ClipoArguments:
    """What CLIPO adds to a configuration of TRL's; from the command line, `--clipo '{"weight": 0.1}'`."""

    clipo: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Fields of CLIPO's configuration, such as weight, that are not the default."}
    )
    """Fields of `clipo_train.config.ClipoConfig`; afterwards holds all of them."""
    clipo_success: str | None = field(
        default=None, metadata={"help": "Name of the reward function that tells correct rollouts from wrong ones."}
    )
    """Name of the reward function that tells correct rollouts from wrong ones; its weight may be 0."""
    clipo_success_threshold: float = field(
        default=0.0, metadata={"help": "A rollout is correct if that function's reward is above this."}
    )
    """A rollout is correct if that function's reward is above this."""

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc] # TRL's
        self.clipo = asdict(read_clipo(self.clipo or {}))


@dataclass
class ClipoGRPOConfig(ClipoArguments, GRPOConfig):
    """`trl.GRPOConfig` and `ClipoArguments`."""

    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, "clipo"]  # noqa: RUF012 - no annotation: it is no field


@dataclass
class ClipoRLOOConfig(ClipoArguments, RLOOConfig):
    """`trl.RLOOConfig` and `ClipoArguments`."""

    _VALID_DICT_FIELDS = [*RLOOConfig._VALID_DICT_FIELDS, "clipo"]  # noqa: RUF012 - no annotation: it is no field


def clipo_contrastive(completions: Sequence[Any], **_: Any) -> list[None]:
    """Keeps a column free among TRL's rewards; `ClipoMixin` fills it in, where it knows the rollouts of all."""
    return [None] * len(completions)


@dataclass
class _Rollouts:
    """This process's rollouts.

    Attributes:
        prompts: Token ids.
        completions: Token ids.
        written: 1 for each token of a completion that the policy wrote, 0 for those of tools.
        pooled: Their pooled hidden states, once they have been through the policy.
    """

    prompts: Sequence[Sequence[int]]
    completions: Sequence[Sequence[int]]
    written: Sequence[Sequence[int]]
    pooled: Tensor | None = None

    def padded(self) -> tuple[Tensor, Tensor]:
        """Tokens and attention mask, laid out as TRL does: prompts padded on the left, completions on the right."""

        def beside(left: list[Tensor], right: list[Tensor]) -> Tensor:
            return torch.cat([pad_sequence(left, True, padding_side="left"), pad_sequence(right, True)], 1)

        prompts = [torch.tensor(row) for row in self.prompts]
        completions = [torch.tensor(row) for row in self.completions]
        ones = [torch.ones_like(row) for row in prompts], [torch.ones_like(row) for row in completions]
        return beside(prompts, completions), beside(*ones)

    def mask(self, width: int) -> Tensor:
        """True where the policy wrote a token, for completions padded to `width`."""
        mask = pad_sequence([torch.tensor(row, dtype=torch.bool) for row in self.written], True)
        return pad(mask, (0, width - mask.shape[1]))


class ClipoMixin(_BaseTrainer):
    """Stands before a trainer of TRL's among the bases: adds the contrastive reward and trains its head.

    Attributes:
        clipo_head: The head, the same on all processes; None if `clipo.enabled` is false.
    """

    args: Any
    reward_funcs: list[Any]
    reward_func_names: list[str]
    reward_processing_classes: list[Any]
    reward_weights: Tensor
    clipo_head: ClipoHead | None = None
    _rollouts: _Rollouts | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self._clipo_config()
        if config.enabled:
            hidden = self.model.config.get_text_config().hidden_size
            self.clipo_head = ClipoHead(hidden, config, seed=self.args.seed, device=self.accelerator.device)
            self.reward_funcs = [*self.reward_funcs, clipo_contrastive]
            self.reward_func_names = [*self.reward_func_names, clipo_contrastive.__name__]
            self.reward_processing_classes = [*self.reward_processing_classes, None]
            self.reward_weights = torch.cat([self.reward_weights, torch.ones(1)])

    def _clipo_config(self) -> ClipoConfig:
        if not isinstance(self.args, ClipoArguments):
            raise ConfigError(f"args: expected a ClipoGRPOConfig or ClipoRLOOConfig, got a {type(self.args).__name__}")
        config, names, chosen = read_clipo(self.args.clipo), self.reward_func_names, self.args.clipo_success
        if config.enabled and (chosen is None or names.count(chosen) != 1):
            raise ConfigError(
                f"clipo_success: expected the name of one reward function, whose reward is above "
                f"clipo_success_threshold "
                f"where a rollout is correct, of {', '.join(names)}; got {chosen!r}"
            )
        if config.enabled and self._is_vlm:
            raise ConfigError("processing_class: expected a tokenizer, as CLIPO is for text alone; got a processor")
        return config

    # The rollouts, and their hidden states.

    def _generate(self, prompts: list[Any]) -> Any:
        output = super()._generate(prompts)
        if self.clipo_head is not None:
            # The third result of GRPO's are masks of what tools wrote, or None; RLOO knows no tools.
            written = output[2] if len(output) > 3 else None
            self._rollouts = _Rollouts(output[0], output[1], written or [[1] * len(row) for row in output[1]])
        return output

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """TRL's scoring. Where it is one of the new rollouts by the policy, it gives their hidden states too."""
        pooling: AbstractContextManager[None] = nullcontext()
        if self._rollouts is not None and self._rollouts.pooled is None and self._by_policy(model):
            pooling = self._pooling(self._rollouts, logits_to_keep)
        with pooling:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )

    def _by_policy(self, model: nn.Module) -> bool:
        """Whether TRL's scoring by `model` is what the policy makes of whole completions."""
        maybe_reference = self.beta != 0 and is_peft_model(self.model)  # the policy with its adapter switched off
        return model is self.model and not maybe_reference and not self.mask_truncated_completions

    @torch.no_grad()
    def _forward(self, rollouts: _Rollouts) -> None:
        """Takes the rollouts through the policy, for want of a scoring by TRL."""
        settings, device = self.args, self.accelerator.device
        size = settings.per_device_train_batch_size if self.model.training else settings.per_device_eval_batch_size
        tokens, attention = rollouts.padded()
        with (
            disable_gradient_checkpointing(self.model, settings.gradient_checkpointing_kwargs),
            self._pooling(rollouts, max(map(len, rollouts.completions))),
            self.accelerator.autocast(),
        ):
            for ids, mask in zip(tokens.to(device).split(size), attention.to(device).split(size), strict=True):
                self.model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)

    @contextmanager
    def _pooling(self, rollouts: _Rollouts, width: int) -> Iterator[None]:
        """Pools the last hidden states at the `width` last places, while all rollouts pass once, a few at a time."""
        mask = rollouts.mask(width).to(self.accelerator.device)
        pooled: list[Tensor] = []

        def pool(_module: nn.Module, _inputs: Any, output: Any) -> None:
            states, done = output[0][:, -width:].float(), sum(map(len, pooled))
            pooled.append(mean_pool(states, mask[done : done + len(states)]))

        policy = self.accelerator.unwrap_model(self.model)
        policy = policy.get_base_model() if is_peft_model(policy) else policy
        handle = policy.base_model.register_forward_hook(pool)
        try:
            yield
        finally:
            handle.remove()
        rollouts.pooled = torch.cat(pooled)

    # The reward.

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(*args, **kwargs)
        if self.clipo_head is not None and self._rollouts is not None:
            if self._rollouts.pooled is None:
                self._forward(self._rollouts)
            verdicts = rewards[:, self.reward_func_names.index(self.args.clipo_success)]
            rewards[:, -1] = self._contrast(self.clipo_head, gather(self._rollouts.pooled), verdicts)
        self._rollouts = None
        return rewards

    def _contrast(self, head: ClipoHead, pooled: Tensor, verdicts: Tensor) -> Tensor:
        """Contrastive rewards of the rollouts of all processes; NaN, which TRL leaves out, where there is no verdict.

        A rollout that nobody judged is neither correct nor wrong, so it has no part in the others' rewards either.
        """
        training = self.model.training
        size = self.num_generations if training else self.num_generations_eval
        judged = verdicts.isnan().logical_not()
        rewards = torch.full_like(verdicts, torch.nan)
        if judged.any():
            groups = torch.arange(len(pooled), device=pooled.device) // size
            success = verdicts > self.args.clipo_success_threshold
            used = 0.0 if head.warming_up else 1.0
            rewards[judged] = used * head.step(pooled[judged], success[judged], groups[judged], learn=training)
            for name, value in head.metrics.items():
                self._metrics["train" if training else "eval"][f"contrastive/{name}"].append(value)
        return rewards

    # Checkpoints.

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.clipo_head is not None and self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.clipo_head.state_dict(), folder / HEAD_FILE)
        super()._save_checkpoint(model, trial)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.clipo_head is not None and checkpoint is not None:
            path = Path(checkpoint, HEAD_FILE)
            if not path.is_file():
                raise ConfigError(
                    f"resume_from_checkpoint: expected a checkpoint with {HEAD_FILE}, got "
                    f"{checkpoint!r}; to begin CLIPO "
                    f"from its policy, give it as the model"
                )
            self.clipo_head.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


class ClipoGRPOTrainer(ClipoMixin, GRPOTrainer):
    """`trl.GRPOTrainer` with contrastive rewards."""


class ClipoRLOOTrainer(ClipoMixin, RLOOTrainer):
    """`trl.RLOOTrainer` with contrastive rewards."""
