"""Prompts as tokens, and which part of a completion is judged."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from clipo_train.data import load_examples
from clipo_train.errors import ConfigError
from clipo_train.policy import encode_prompts
from clipo_train.reasoning import TAGS, Reasoning, judged_texts
from clipo_train.rollout import Generation
from clipo_train.types import Example

CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }};{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
ALTERNATE = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('must alternate') }}{% endif %}{% endfor %}"
)
TAKES = "data: expected messages that the chat template takes, got line 1 of 'a.jsonl'"
DEFAULT = "model.path: expected a tokenizer with a default chat template for the messages of line 1 of 'a.jsonl'"
SYSTEM, USER = {"role": "system", "content": "be"}, {"role": "user", "content": "hi"}


def tokenizer(
    template: Any = None, *, bos: bool = False, eos: bool = False, special: str = ""
) -> PreTrainedTokenizerBase:
    characters = "abcdefghijklmnopqrstuvwxyz []<>/;.THINK\n"
    base = Tokenizer(models.BPE(vocab={character: number for number, character in enumerate(characters)}, merges=[]))
    names = ["<s>", "</s>", *special.split()]
    base.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    base.post_processor = processors.TemplateProcessing(
        single=("<s> " if bos else "") + "$A" + (" </s>" if eos else ""),
        special_tokens=[(name, base.token_to_id(name)) for name in names[:2]],
    )
    base.decoder = decoders.Fuse()
    found = PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<s>", eos_token="</s>")  # noqa: S106
    found.chat_template = template
    return found


def rendered(chosen: PreTrainedTokenizerBase, *messages: dict[str, str]) -> str:
    (item,) = encode_prompts(chosen, [Example(messages, "a", "s", place="line 1 of 'a.jsonl'")])
    return str(chosen.decode(item.prompt_ids))


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("eos", [False, True])
@pytest.mark.parametrize("text", ["hi", "<s>hi"])
def test_a_text_has_one_beginning_and_no_end(text: str, bos: bool, eos: bool) -> None:
    chosen = tokenizer(bos=bos, eos=eos)
    (item,) = encode_prompts(chosen, [Example(text, "a", "s")])
    expected = (["<s>"] if bos or text != "hi" else []) + ["h", "i"]
    assert chosen.convert_ids_to_tokens(item.prompt_ids) == expected


def test_a_chat_template_writes_its_own_beginning() -> None:
    assert rendered(tokenizer("<s>" + CHAT, bos=True, eos=True), USER) == "<s>[user]hi;[assistant]"


@pytest.mark.parametrize(
    "template", [NO_SYSTEM, "{% set messages = messages | selectattr('role', 'ne', 'system') %}" + CHAT]
)
def test_a_refused_or_ignored_system_message_joins_the_users(template: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert rendered(tokenizer(template), SYSTEM, USER) == "[user]be\n\nhi;[assistant]"
    assert [
        record.message.startswith("data: the chat template does not take the system") for record in caplog.records
    ] == [True]


@pytest.mark.parametrize(
    ("template", "messages", "message"),
    [
        (ALTERNATE + CHAT, [USER, USER], f"{TAKES}: must alternate"),
        ("{{ messages[5].content.x }}", [USER], f"{TAKES}: "),
        ("none", [USER], f"{TAKES}: it leaves out the user message"),
        ({"rag": CHAT, "tool_use": CHAT}, [USER], f"{DEFAULT}, got only rag, tool_use"),
        (None, [USER], f"{DEFAULT}, got none"),
    ],
)
def test_refused_in_one_line(template: Any, messages: list[dict[str, str]], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        rendered(tokenizer(template), *messages)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_the_default_of_several_templates() -> None:
    assert rendered(tokenizer({"default": CHAT, "rag": "no"}), USER) == "[user]hi;[assistant]"


def test_an_assistants_last_message_is_continued(tmp_path: Path) -> None:
    chosen = tokenizer(CHAT)
    assert rendered(chosen, USER, {"role": "assistant", "content": "so"}) == "[user]hi;[assistant]so"
    assert rendered(chosen, USER, {"role": "assistant", "content": ""}) == "[user]hi;[assistant]"
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt":[{"role":"user","content":"q"},{"role":"assistant","content":"so"}],"answer":"5"}\n')
    (example,) = load_examples(str(path), prompt_prefix="p ", prompt_suffix="s")
    assert [message["content"] for message in example.prompt if isinstance(message, dict)] == ["p q\ns", "so"]


def test_how_many_prompts_are_too_long_is_said(caplog: pytest.LogCaptureFixture) -> None:
    examples = [Example(text, "a", "s") for text in ("hi", "h" * 9, "h" * 12)]
    with caplog.at_level(logging.WARNING):
        assert len(encode_prompts(tokenizer(), examples, max_tokens=4)) == 1
    (record,) = caplog.records
    assert record.message.startswith(
        "data: 2 of 3 prompts are longer than rollout.max_prompt_tokens (4) and are left out"
    )


THINKS = CHAT + "{# <think> </think> #}"
OPENS = CHAT + "<think>\n"
CLOSED = THINKS + "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("template", "judge", "completion", "judged"),
    [
        (CHAT, None, "<think>a</think>b", "<think>a</think>b"),
        (CHAT, False, "<think>a</think>b", "b"),
        (CHAT, False, "b", "b"),
        (THINKS, None, "<think>a</think>b", "b"),
        (THINKS, None, "<think>a</think>b<think>c</think>d", "d"),
        (THINKS, None, "<think>a", ""),
        (THINKS, None, "a</think>b", "b"),
        (THINKS, None, "b", "b"),
        (THINKS, True, "<think>a</think>b", "<think>a</think>b"),
        (OPENS, None, "a</think>b", "b"),
        (OPENS, None, "a", ""),
        (CLOSED, None, "b <think> c", "b <think> c"),
    ],
)
def test_what_follows_the_reasoning_is_judged(template: str, judge: bool | None, completion: str, judged: str) -> None:
    (item,) = encode_prompts(tokenizer(template), [Example((USER,), "a", "s")], judge_thinking=judge)
    assert (completion if item.reasoning is None else item.reasoning.strip(completion)) == judged


@pytest.mark.parametrize(
    ("text", "opened"), [("q <think>", True), ("q <think>\n", True), ("use <think> and so", False)]
)
def test_a_text_prompt_that_opens_the_reasoning(text: str, opened: bool) -> None:
    (item,) = encode_prompts(tokenizer(), [Example(text, "a", "s")])
    assert (item.reasoning == Reasoning(("<think>",), opened=True)) is opened


@pytest.mark.parametrize("tag", TAGS)
def test_every_pair_of_tags(tag: str) -> None:
    reasoning = Reasoning((tag,))
    assert [reasoning.strip(text) for text in (f"{tag}a{TAGS[tag]}b", f"{tag}a", "b")] == ["b", "", "b"]


def test_tags_that_are_special_tokens() -> None:
    chosen = tokenizer(special="[THINK] [/THINK]")
    (item,) = encode_prompts(chosen, [Example("hi", "a", "s")])
    rows = [chosen(text, add_special_tokens=False)["input_ids"] for text in ("[THINK]a[/THINK]b</s>", "[THINK]abbbbb")]
    tokens, mask = torch.zeros(2, 7, dtype=torch.long), torch.zeros(2, 7, dtype=torch.bool)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)], mask[row, : len(ids)] = torch.tensor(ids), True
    texts = [str(chosen.decode(ids, skip_special_tokens=True)) for ids in rows]
    generation = Generation(tokens, mask, mask, texts, torch.tensor([True, False]))
    assert texts == ["ab", "abbbbb"]
    assert judged_texts([item.reasoning], generation) == ["b", ""]
