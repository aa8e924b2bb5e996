"""A policy whose tokens are hostile text, so that all it samples are hostile completions, and rows to judge them by."""

import json
from pathlib import Path
from typing import Any

import reasoning_gym
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils.logging import disable_progress_bar

TASKS = (
    *("countdown", "puzzle24", "spiral_matrix", "string_insertion", "binary_matrix", "n_queens"),
    *("simple_integration", "polynomial_multiplication", "chain_sum", "list_functions"),
)
"""Tasks of reasoning-gym whose scorers evaluate, parse or read an answer."""
ANSWERS = {"math": ("7", "1/2", "x+1"), "multiple_choice": ("A", "B"), "exact_match": ("7",)}
"""Ground truths by verifier."""
_PAD, _EOS = "<pad>", "<eos>"


def hostile_pieces(marker: Path) -> list[str]:
    """Text that would write the marker, hang, take all memory, or break the lines and pages that it is written to."""
    touch = f"__import__('os').system('touch {marker}')"
    return [
        *(
            "0123456789ABx+/=-()[]{},",
            "\\boxed{",
            "}",
            "<answer>",
            "</answer>",
            "the answer is ",
            "```python\n",
            "\n```",
        ),
        *(touch, f"open('{marker}','w')", f'exec("{touch}")', f"[{touch} for _ in [1]]", f"!{touch}", f"S('{marker}')"),
        *("().__class__.__bases__[0].__subclasses__()", "{0.__class__.__init__.__globals__}", "%s%n", "globals()"),
        *(
            "9**9**9",
            "9^{9^{9^{9}}}",
            "factorial(99999999)",
            "(x+y+z+w)^{1000}",
            "[0]*10**10",
            "9" * 5000,
            "1e99999999",
        ),
        *("(" * 500, "\\boxed{" * 200, "\\frac{" * 200, "(a+)+$", "-" * 2000, "\\ud800", "\ufffd", "\U0001f4a9"),
        *("\u2028", "\u2029", "\x85", "\x00", "\x1b[2J", "\r", "\u202e", "[/red]", "</script>", "{{7*7}}", "${jndi:x}"),
    ]


def write_bed(folder: Path, marker: Path) -> None:
    """Writes `model` and `rows.jsonl` to a folder."""
    found = rows()
    correct = [f"\\boxed{{{row['answer']}}}" for row in found]  # so that there is something to learn
    first, *pieces = hostile_pieces(marker)
    names = [*dict.fromkeys([*first, *pieces, *correct]), _PAD, _EOS]
    ids = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.decoder = decoders.Fuse()
    config = Qwen2Config(
        vocab_size=len(ids),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        pad_token_id=ids[_PAD],
        eos_token_id=ids[_EOS],
        bos_token_id=None,
    )
    disable_progress_bar()
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_EOS, padding_side="left"
    ).save_pretrained(folder / "model")
    lines = [json.dumps({"prompt": str(number), **row}) + "\n" for number, row in enumerate(found)]
    (folder / "rows.jsonl").write_text("".join(lines))


def rows() -> list[dict[str, Any]]:
    found = [{"answer": answer, "verifier": name} for name, answers in ANSWERS.items() for answer in answers]
    for task in TASKS:
        entry = reasoning_gym.create_dataset(task, size=1, seed=0)[0]
        found.append({"answer": str(entry["answer"]), "verifier": "reasoning_gym", "task": task, "entry": entry})
    return found
