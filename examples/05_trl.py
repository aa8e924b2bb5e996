"""CLIPO in TRL: GRPOTrainer with the class swapped, on the arithmetic test bed. `python examples/05_trl.py [STEPS]`.

Needs `pip install 'clipo[trl]'` and no network. With a model and data of yours, the rest stays as it is:

    ClipoGRPOTrainer(model="Qwen/Qwen3-0.6B", reward_funcs=accuracy_reward, args=args, train_dataset=dataset)
"""

import sys
from collections.abc import Sequence
from tempfile import gettempdir
from typing import Any

import torch
from datasets import Dataset

from clipo_train.adapters.trl import ClipoGRPOConfig, ClipoGRPOTrainer
from clipo_train.testbed.arithmetic import problems
from clipo_train.testbed.warm_start import warm_start


def right_answer(completions: Sequence[str], answer: Sequence[str], **_: Any) -> list[float]:
    """1 for the right digit after the hash, else 0."""
    return [float(text.partition("#")[2] == truth) for text, truth in zip(completions, answer, strict=True)]


def main(steps: int) -> None:
    """Trains, and prints a line for each step."""
    tasks = problems("train")
    dataset = Dataset.from_dict({"prompt": [task.prompt for task in tasks], "answer": [task.answer for task in tasks]})
    args = ClipoGRPOConfig(
        output_dir=f"{gettempdir()}/clipo-trl",
        clipo={"objective": "supcon_out"},  # fields of clipo_train.config.ClipoConfig
        clipo_success="right_answer",  # the reward function that says which rollouts are right
        per_device_train_batch_size=64,
        num_generations=16,
        max_completion_length=24,
        learning_rate=1e-3,
        max_steps=steps,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        activation_checkpointing=False,
    )
    policy, tokenizer = warm_start(0)  # half a minute of supervised training
    trainer = ClipoGRPOTrainer(
        model=policy,
        reward_funcs=right_answer,
        args=args,
        train_dataset=dataset,
        processing_class=tokenizer,
    )
    trainer.train()
    print("step  right  contrastive reward")
    for row in trainer.state.log_history[:-1]:
        right, contrastive = row["rewards/right_answer/mean"], row["rewards/clipo_contrastive/mean"]
        print(f"{row['step']:4d}  {right:5.2f}  {contrastive:18.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
