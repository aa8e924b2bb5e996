"""Our trainer next to TRL's: `.venv-trl/bin/python benchmarks/trainer_trl.py [--rounds 5] [--shape small]`.

Both train the same model, built on the spot, on the same prompts: as many rollouts, the same reward, one epoch of two
updates by the same AdamW, in float32 on one thread. In `ragged` a response ends with a chance of 1 / vocabulary at
every token, as responses do; the limit is for it. In `small` and `medium` all have the same number of tokens, since the
model cannot end one: there both do the same arithmetic, and neither can be much faster. TRL's trainer, ours without
CLIPO, and ours with it take turns, each in a fresh process. A step is a batch of rollouts and its updates; counted are
the median step after two to warm up, in seconds of CPU time, which on one thread are those of the clock when nothing
else runs, and the process's peak of resident memory.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from harness import Row, arguments_parser, publish, sized, status_bytes, timed
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

WARM_UP, UPDATES, GROUP, PROMPTS = 2, 2, 8, 256
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
CANDIDATES = ("TRL", "without CLIPO", "with CLIPO")


class Shape(NamedTuple):
    """A model, and how many rollouts of how many tokens it samples in a step."""

    layers: int
    hidden: int
    vocab: int
    rollouts: int
    tokens: int
    micro_batch: int
    ends: bool = False

    @property
    def minibatch(self) -> int:
        return self.rollouts // UPDATES

    @property
    def eos(self) -> int:
        """A token without a logit, if responses are not to end."""
        return self.vocab - 1 if self.ends else self.vocab

    def __str__(self) -> str:
        of = "at most" if self.ends else "of"
        model = f"{self.layers} layers of {self.hidden}, vocabulary of {self.vocab}"
        return f"{model}, {self.rollouts} rollouts {of} {self.tokens} tokens"


SHAPES = {
    "small": Shape(layers=4, hidden=128, vocab=256, rollouts=64, tokens=32, micro_batch=32),
    "medium": Shape(layers=8, hidden=384, vocab=8192, rollouts=32, tokens=64, micro_batch=16),
    "ragged": Shape(layers=4, hidden=128, vocab=64, rollouts=64, tokens=128, micro_batch=8, ends=True),
}


def success(text: str) -> bool:
    """About half of all texts."""
    return zlib.crc32(text.encode()) % 2 == 0


def build(shape: Shape, folder: Path) -> None:
    """Model, tokenizer and prompts."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=3 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=shape.eos,
    )
    MistralForCausalLM(config).save_pretrained(folder / "model")
    words = {f"w{number}": number for number in range(shape.eos)} | {"<eos>": shape.eos}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="w0",  # noqa: S106
        eos_token="<eos>",  # noqa: S106
        padding_side="left",
    ).save_pretrained(folder / "model")
    prompts = [
        " ".join(f"w{1 + (7 * row + place) % (shape.eos - 1)}" for place in range(8 + row % 8))
        for row in range(PROMPTS)
    ]
    lines = [json.dumps({"prompt": prompt, "answer": ""}) for prompt in prompts]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")


def ours(shape: Shape, folder: Path, steps: int, *, clipo: bool) -> list[float]:
    """Seconds of each step of our trainer."""
    from clipo_train.config import ClipoConfig, DataConfig, ModelConfig, OptimizerConfig, RolloutConfig, TrainConfig
    from clipo_train.trainer import Trainer
    from clipo_train.types import Example, Verdict
    from clipo_train.verifiers import VerifierPool

    class Half(VerifierPool):
        def verify(self, examples: Sequence[Example], completions: Sequence[str]) -> list[Verdict]:
            return [Verdict(correct, float(correct)) for correct in map(success, completions)]

    stamps: list[float] = []

    class Stamped(Trainer):
        def _step(self) -> dict[str, float]:
            stamps.append(time.process_time())
            return super()._step()

    trainer = Stamped(
        TrainConfig(
            run_dir=folder / "run",
            steps=steps,
            model=ModelConfig(path=str(folder / "model")),
            data=DataConfig(train=str(folder / "prompts.jsonl"), verifier="exact_match"),
            rollout=RolloutConfig(batch_size=shape.rollouts, group_size=GROUP, max_new_tokens=shape.tokens),
            optimizer=OptimizerConfig(
                learning_rate=1e-5, minibatch_size=shape.minibatch, micro_batch_size=shape.micro_batch
            ),
            clipo=ClipoConfig(enabled=clipo),
        )
    )
    trainer.verifier = Half("exact_match")
    trainer.train()
    return [after - before for before, after in pairwise(stamps)]


def trls(shape: Shape, folder: Path, steps: int) -> list[float]:
    """Seconds of each step of TRL's trainer."""
    from datasets import load_dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    stamps: list[float] = []

    class Stamps(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % UPDATES == 0:
                stamps.append(time.process_time())

    config = GRPOConfig(
        output_dir=str(folder / "trl"),
        max_steps=steps * UPDATES,
        per_device_train_batch_size=shape.micro_batch,
        gradient_accumulation_steps=shape.minibatch // shape.micro_batch,
        steps_per_generation=shape.rollouts // shape.micro_batch,
        num_generations=GROUP,
        max_completion_length=shape.tokens,
        learning_rate=1e-5,
        lr_scheduler_type="constant",
        weight_decay=0.01,
        adam_beta2=0.999,
        max_grad_norm=1.0,
        loss_type="dapo",
        beta=0.0,
        activation_checkpointing=False,
        bf16=False,
        use_cpu=True,
        logging_steps=UPDATES,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    model = MistralForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [float(success(text)) for text in completions],
        args=config,
        train_dataset=load_dataset("json", data_files=str(folder / "prompts.jsonl"), split="train"),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder / "model"),
        callbacks=[Stamps()],
    ).train()
    return [after - before for before, after in pairwise(stamps)]


def work(candidate: str, shape: Shape, steps: int) -> None:
    """Trains in this process, and prints seconds of a step and bytes at the peak."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(shape, folder)
        seconds = (
            trls(shape, folder, steps)
            if candidate == "TRL"
            else ours(shape, folder, steps, clipo=candidate == "with CLIPO")
        )
    print(json.dumps([statistics.median(seconds[WARM_UP:]), status_bytes("VmHWM")]))


def measure(name: str, rounds: int, steps: int) -> list[Row]:
    """Candidates in turn, each in a fresh process; the median over rounds of each."""
    found: dict[str, list[list[float]]] = {candidate: [] for candidate in CANDIDATES}
    for turn in range(rounds):
        for place in range(len(CANDIDATES)):
            candidate = CANDIDATES[(turn + place) % len(CANDIDATES)]
            command = [sys.executable, __file__, "--candidate", candidate, "--shape", name, "--steps", str(steps)]
            done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode:
                sys.exit(done.stderr)
            found[candidate].append(json.loads(done.stdout.splitlines()[-1]))
    time_of, peak = (
        {candidate: statistics.median(row[column] for row in rows) for candidate, rows in found.items()}
        for column in (0, 1)
    )
    shape = SHAPES[name]
    clipo = timed(f"step with CLIPO / without: {shape}", time_of["with CLIPO"], time_of["without CLIPO"], 1.05)
    limit = 1 / 1.3 if shape.ends else None
    return [
        *(timed(f"step {own} / TRL: {shape}", time_of[own], time_of["TRL"], limit) for own in CANDIDATES[1:]),
        *([] if shape.ends else [clipo]),  # where lengths differ, theirs decide
        *(sized(f"peak memory {own} / TRL: {shape}", peak[own], peak["TRL"], 1) for own in CANDIDATES[1:]),
    ]


def main() -> None:
    parser = arguments_parser(__doc__, rounds=5)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--shape", choices=SHAPES, help="only this one")
    parser.add_argument("--candidate", choices=CANDIDATES, help="train in this process, as the benchmark's children do")
    arguments = parser.parse_args()
    if arguments.candidate:
        work(arguments.candidate, SHAPES[arguments.shape], arguments.steps)
        return
    torch.set_num_threads(1)  # as the children, for what is said of the machine
    names = [arguments.shape] if arguments.shape else list(SHAPES)
    publish([row for name in names for row in measure(name, arguments.rounds, arguments.steps)], arguments.output)


if __name__ == "__main__":
    main()
