"""The sections of the configuration that say what a run works with, and the whole of it."""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Interval
from pydantic.dataclasses import dataclass
from pydantic_settings import CliImplicitFlag

from clipo_train.config.algorithm import ClipoConfig, LossConfig, OptimizerConfig, RewardConfig
from clipo_train.config.fields import STRICT, Count, Fraction, Natural, NonNegative, Positive, Seed
from clipo_train.folders import check_path
from clipo_train.types import Column


@dataclass(frozen=True, config=STRICT)
class LoraConfig:
    """Low-rank adapters; arXiv 2106.09685."""

    rank: Count = 16
    """Of the adapters."""
    alpha: Count = 32
    """They are scaled by alpha / rank."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Of the adapters' inputs, in updates. Above 0, ratios are not 1 where the policy is still the one that sampled."""
    target_modules: tuple[str, ...] | None = None
    """Names of the layers that get one, as `[q_proj, v_proj]`; all linear ones but the head when not given."""


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The policy."""

    path: str = "arithmetic"
    """Folder or hub name of a Hugging Face model; `package:NAME` for one inside a Python package; `arithmetic` for the
    test bed's, built and warm-started on the spot; `arithmetic:same-slip` for one whose most common way to a right
    answer is a wrong one."""
    gguf_file: str | None = None
    """Name of a GGUF file inside that folder, to be read instead of safetensors."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights. Small learning rates need float32; `mixed_precision` speeds it up."""
    dropout: bool = False
    """Keep the model's own dropout and router noise in updates. Rollouts are sampled and scored without them, so with
    them the ratio is not 1 where the policy has not moved."""
    gradient_checkpointing: bool = False
    """Recompute activations in backward: less memory, about a third more time."""
    chunked_head: bool = False
    """Take log-probabilities from the last hidden states a chunk of words at a time, so that logits of all tokens x
    vocabulary are never held: much less memory, a little more time."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all weights."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Read it first."""


@dataclass(frozen=True, config=STRICT)
class DataConfig:
    """What is trained on, and who says what is right."""

    train: str = "arithmetic:train"
    """`arithmetic:SPLIT`, `reasoning_gym:TASK`, `hf:NAME[:SPLIT]`, or a .parquet or .jsonl file."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of a reasoning-gym task, such as `size` or `min_terms`, or of `datasets.load_dataset`, such as `name`. On
    the command line `size=5,name=main`: numbers, true, false, null and lists as in JSON, `name="5"` for text."""
    columns: dict[Column, str] = field(default_factory=dict)
    """Where rows have their `prompt`, `answer` and `source`, if not under these names: `{prompt: question}`. A dot
    leads into a nested field."""
    prompt_prefix: str = ""
    """Put before every prompt (its last user message) that does not begin with it."""
    prompt_suffix: str = ""
    """Put on a line of its own after every prompt (its last user message) that does not have it yet."""
    limit: Count | None = None
    """Use only that many examples of the training set."""
    verifier: str = "arithmetic"
    """`arithmetic`, `exact_match`, `multiple_choice`, `math`, `reasoning_gym`, `auto` for the one that fits a row's
    source, or a function of yours as `module:function`."""
    judge_thinking: bool | None = None
    """Whether the verifier sees the reasoning in `<think>` and the like. None hides it where the prompt, the chat
    template or the vocabulary has such tags; false hides it always."""
    verifier_timeout: Positive = 10.0
    """Seconds one completion may take; one that takes longer counts as incorrect."""
    verifier_memory: Positive = 4.0
    """GiB of memory that each worker process may use; a completion that takes more counts as incorrect."""
    verifier_workers: Count = 2
    """Worker processes that judge completions."""
    verifier_env: tuple[str, ...] = ()
    """Environment variables that your verifier needs, such as a key. Workers get `PATH` and other harmless ones
    only."""
    check_rows: Natural = 64
    """Before training, one of our verifiers judges the ground truths of up to this many rows of each data set; 0 skips
    the check."""
    max_rejected: Fraction = 0.2
    """Share of these ground truths that the verifier may reject. Above it the run is refused."""


@dataclass(frozen=True, config=STRICT)
class RolloutConfig:
    """How completions are sampled."""

    batch_size: Count = 128
    """Rollouts per step; a multiple of `group_size`."""
    group_size: Annotated[int, Ge(2)] = 8
    """Rollouts per prompt."""
    max_prompt_tokens: Count = 512
    """Longer prompts are left out of the training set, and counted in a warning."""
    max_new_tokens: Count = 24
    """Tokens a response may have at most."""
    temperature: Positive = 1.0
    """Sampling temperature; log-probabilities are taken at the same one."""
    dynamic_sampling: bool = False
    """Sample further prompts, a batch at a time, until there is a batch of groups in which some rollouts are right and
    some wrong; see `clipo_train.collector`."""
    max_sampling_rounds: Count = 10
    """With `dynamic_sampling`, batches sampled in a step at most; then its batch is filled up with other groups."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What samples. `vllm` is made for speed on a GPU; it needs the extra of that name."""
    gpu_memory_utilization: Annotated[float, Interval(gt=0, le=1)] = 0.4
    """Share of a GPU's memory that vLLM takes; the trainer needs the rest."""
    logprob_tolerance: NonNegative = 1e-3
    """How far an engine's log-probabilities may be from the trainer's, at the start and after the first update. Beyond
    it the run stops: it would train on another policy's samples."""


@dataclass(frozen=True, config=STRICT)
class SetConfig:
    """An evaluation set that is not laid out like the training set."""

    source: str
    """As `data.train`."""
    options: dict[str, Any] = field(default_factory=dict)
    """As `data.options`."""
    columns: dict[Column, str] = field(default_factory=dict)
    """As `data.columns`."""


@dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """What is measured, and when."""

    sets: dict[str, str | SetConfig] = field(default_factory=dict)
    """Name -> source, as `data.train` and with the same `options` and `columns`; or source, options and columns."""
    every: Natural = 0
    """Steps between evaluations; 0 evaluates before and after training only."""
    initial: bool = True
    """Evaluate before training too."""
    limit: Count | None = 256
    """Examples of each set."""
    samples: Count = 1
    """Completions of each prompt; with more than one, pass@k and maj@k are measured too."""
    temperature: NonNegative = 0.0
    """0 is greedy."""
    top_p: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Sample from the likeliest tokens only that together have this probability."""
    max_new_tokens: Count | None = None
    """Tokens a response may have at most; `rollout.max_new_tokens` when not given."""
    batch_size: Count = 256
    """Completions that a process generates at once."""
    verifier: str | None = None
    """As `data.verifier`, which is taken when this is not given."""

    def __post_init__(self) -> None:
        for name in self.sets:
            if "/" in name or name == "average":
                raise ValueError(f"evaluation.sets: expected names without '/', and not 'average', got {name!r}")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"evaluation.temperature: expected more than 0 for {self.samples} samples, which greedy decoding makes "
                f"all the same, got 0"
            )


@dataclass(frozen=True, config=STRICT)
class LoggingConfig:
    """What is written besides metrics.jsonl."""

    trackers: tuple[
        Literal["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"], ...
    ] = ()
    """Accelerate's trackers; all but `tensorboard` want the package of that name installed."""
    project: str = "clipo"
    """Their project's name."""
    completions: Natural = 8
    """Sample completions kept per step."""


@dataclass(frozen=True, config=STRICT)
class CheckpointConfig:
    """What survives a crash."""

    every: Natural = 20
    """Steps between checkpoints; there is always one of the last step. 0 writes that one only."""
    keep: Count = 2
    """Latest checkpoints kept."""


@dataclass(frozen=True, config=STRICT)
class TrainConfig:
    """A run. Every field is one of YAML and, dotted, one of the command line: `--clipo.weight 0.1`."""

    run_dir: Path = Path("runs/run")
    """Folder to write to. It must not exist yet, unless the run is resumed."""
    preset: str | None = None
    """Fields that are not given are a method's: `grpo`, `dr_grpo`, `dapo`, `gspo` or `gmpo`, by its paper's numbers, or
    with CLIPO: `grpo+clipo` and so on. The file and the command line win over it."""
    resume: CliImplicitFlag[bool] = False
    """Go on from the latest checkpoint in `run_dir`, or begin where there is none yet."""
    steps: Count = 40
    """Batches of rollouts."""
    seed: Seed = 0
    """Of everything random."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Accelerate's."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    clipo: ClipoConfig = field(default_factory=ClipoConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        check_path("run_dir", self.run_dir)
        rollout, optimizer = self.rollout, self.optimizer
        if self.loss.surrogate == "vespo" and self.loss.rollout_level != "token":
            raise ValueError(
                "loss.rollout_level: expected 'token' with loss.surrogate 'vespo', whose weight multiplies the tokens' "
                f"own, got {self.loss.rollout_level!r}"
            )
        if self.loss.rollout_correction != "none" and rollout.engine == "transformers":
            raise ValueError(
                "loss.rollout_correction: expected 'none' where the policy itself samples, as by rollout.engine "
                f"'transformers', got {self.loss.rollout_correction!r}"
            )
        if self.loss.kl_weight > 0 and self.loss.kl_in == "loss" and self.loss.kl_estimator == "k1":
            raise ValueError(
                "loss.kl_estimator: expected another with loss.kl_in 'loss', where the gradient of 'k1' is noise, "
                "got 'k1'"
            )
        _divides("rollout.group_size", rollout.group_size, "rollout.batch_size", rollout.batch_size)
        _divides("optimizer.minibatch_size", optimizer.minibatch_size, "rollout.batch_size", rollout.batch_size)
        _divides(
            "optimizer.micro_batch_size",
            optimizer.micro_batch_size,
            "optimizer.minibatch_size",
            optimizer.minibatch_size,
        )


def _divides(name: str, divisor: int, of: str, number: int) -> None:
    if number % divisor:
        raise ValueError(f"{name}: expected a divisor of {of} = {number}, got {divisor}")
