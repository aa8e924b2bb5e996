"""Trains for three steps on as many processes as there are: `sharing.py POLICY FOLDER`.

Whoever samples it, the n-th rollout of a step has the same completion, so that one process and two train on the same.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import Qwen2ForCausalLM

from clipo_train.adapters.trl import ClipoGRPOConfig, ClipoGRPOTrainer
from clipo_train.testbed.arithmetic import problems
from clipo_train.testbed.warm_start import build_tokenizer


def even(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 2 == 0) for ids in completion_ids]


def roll_out(prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
    first = trainer.accelerator.process_index * len(prompts)
    completions = []
    for place in range(first, first + len(prompts)):
        generator = torch.Generator().manual_seed(1000 * trainer.state.global_step + place)
        size = int(torch.randint(2, 12, (), generator=generator))
        completions.append(torch.randint(0, 15, (size,), generator=generator).tolist())
    return {
        "prompt_ids": trainer.processing_class(list(prompts))["input_ids"],
        "completion_ids": completions,
        "logprobs": [[0.0] * len(ids) for ids in completions],
    }


def train(policy: str, folder: Path) -> None:
    tasks = [
        *problems("train")[:16],
        *problems("long")[:16],
    ]  # prompts of different lengths, so that ranks pad otherwise
    processes = torch.distributed.get_world_size()
    args = ClipoGRPOConfig(
        output_dir=str(folder),
        clipo={"dim": 16},
        clipo_success="even",
        per_device_train_batch_size=12 // processes,
        num_generations=4,  # with two processes, the second of three groups is on both
        learning_rate=1e-3,
        max_steps=3,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
    )
    trainer = ClipoGRPOTrainer(
        model=Qwen2ForCausalLM.from_pretrained(policy),
        reward_funcs=even,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [task.prompt for task in tasks]}),
        processing_class=build_tokenizer(),
        rollout_func=roll_out,
    )
    trainer.train()
    rows, rank = trainer.state.log_history[:3], trainer.accelerator.process_index
    results = {
        "head": trainer.clipo_head.state_dict(),
        "policy": trainer.model.state_dict(),
        "contrastive": torch.tensor([row.get("rewards/clipo_contrastive/mean", torch.nan) for row in rows]),
    }
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    train(sys.argv[1], Path(sys.argv[2]))
