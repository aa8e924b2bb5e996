"""A policy whose tokens are hostile text, so that whatever it samples is a hostile completion, and rows to judge it by."""

import json
from pathlib import Path
from typing import Any

import reasoning_gym
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

TASKS = (
    *("countdown", "puzzle24", "spiral_matrix", "string_insertion", "binary_matrix", "n_queens"),
    *("simple_integration", "polynomial_multiplication", "chain_sum", "list_functions"),
)
"""Tasks of reasoning-gym whose scorers evaluate, parse or read an answer."""
ANSWERS = {"math": ("7", "1/2", "x+1"), "multiple_choice": ("A", "B"), "exact_match": ("7",)}
"""By verifier: ground truths that random tokens hit now and then."""


def pieces(marker: Path) -> list[str]:
    """The vocabulary: marks of answers, answers, and text that would write the marker, hang, blow up or break lines."""
    touch = f"__import__('os').system('touch {marker}')"
    return [
        *"0123456789ABx+/=-()[]{},",
        *("\\boxed{", "}", "<answer>", "</answer>", "the answer is ", "####", "```python\n", "\n```", "\\frac{", "$"),
        *(touch, f"open('{marker}','w')", f"exec(\"{touch}\")", f"[{touch} for _ in [1]]", f"S('{marker}')", f"!{touch}"),
        *("().__class__.__bases__[0].__subclasses__()", "{0.__class__.__init__.__globals__}", "%s%n", "globals()"),
        *("9**9**9", "9^{9^{9^{9}}}", "factorial(99999999)", "(x+y+z+w)^{1000}", "[0]*10**10", "9" * 5000, "1e999999999"),
        *("(" * 500, "\\boxed{" * 200, "\\frac{" * 200, "(a+)+$", "-" * 2000, "\\ud800", "\ufffd", "\U0001f4a9", "\u202e"),
        *("\u2028", "\u2029", "\x85", "\x00", "\x1b[2J", "\r", "[/red]", "</script><script>", "{{7*7}}", "${jndi:x}"),
    ]


def write_bed(folder: Path, marker: Path) -> None:
    """Writes `model` and `rows.jsonl` to a folder."""
    names = [*dict.fromkeys(pieces(marker)), "<pad>", "<eos>"]
    ids = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    config = Qwen2Config(
        vocab_size=len(ids),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        pad_token_id=ids["<pad>"],
        eos_token_id=ids["<eos>"],
        bos_token_id=None,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    ).save_pretrained(folder / "model")
    lines = [json.dumps({"prompt": str(number), **row}) + "\n" for number, row in enumerate(rows())]
    (folder / "rows.jsonl").write_text("".join(lines))


def rows() -> list[dict[str, Any]]:
    found = [{"answer": answer, "verifier": name} for name, answers in ANSWERS.items() for answer in answers]
    for task in TASKS:
        entry = reasoning_gym.create_dataset(task, size=1, seed=0)[0]
        found.append({"answer": str(entry["answer"]), "verifier": "reasoning_gym", "task": task, "entry": entry})
    return found
