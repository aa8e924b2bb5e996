"""Chat templates and models that are not what they should be; laid out as in `bad_files`."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from .bad_files import DEEP, TRAIN, Group, empty, folder, loop


def without_a_layer(path: Path) -> None:
    weights = {name: weight for name, weight in load_file(path).items() if ".layers.1." not in name}
    save_file(weights, path, metadata={"format": "pt"})


TAKES = "data: expected messages that the chat template takes, got line 1 of 'chat.jsonl': "
TEMPLATE = Group(
    f"{TRAIN} --data.train chat.jsonl",
    "model/chat_template.jinja",
    TAKES,
    {
        "syntax": ("{% for %}", "Expected an expression, got 'end of statement block'"),
        "refusal": ("{{ raise_exception('a\nb' * 1000) }}", "a ba b"),
        "undefined": ("{{ x.y.z }}", "'x' is undefined"),
        "filter": ("{{ messages|nope }}", "No filter named 'nope'."),
        "division": ("{{ 1 // 0 }}", "integer division or modulo by zero"),
        "range": ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big."),
        "recursion": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth exceeded"),
        "type": ("{{ 1 + 'a' }}", "unsupported operand type(s) for +: 'int' and 'str'"),
        "item": ("{{ messages[9].role }}", "list object has no element 9"),
        "digits": ("{{ 10 ** 5000 }}", "Exceeds the limit (4300 digits)"),
        "class": ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe."),
        "import": ("{% import 'os' as os %}", "no loader for this environment specified"),
    },
)
LOADS = "a model that transformers can load, got 'model': "
MODEL = Group(
    TRAIN,
    "model/config.json",
    "model.path: expected ",
    {
        name: (content, message)
        for contents, message in (
            (("[]", "null", "3", "", "{", b"\xff", '{"a": ' + DEEP), LOADS),
            (
                (
                    {"model_type": "nope"},
                    {"model_type": 3},
                    {"model_type": "t5"},
                    {"hidden_size": 0},
                    {"hidden_size": "x"},
                    {"hidden_size": 10**12},
                    {"num_hidden_layers": -1},
                    {"num_attention_heads": 0},
                    {"hidden_act": "nope"},
                    {"rope_parameters": {"rope_type": "nope"}},
                    {"layer_types": ["nope"]},
                    {"dtype": "nope"},
                    {"quantization_config": {"quant_method": "gptq", "bits": 4}},
                    {"quantization_config": {"quant_method": "awq", "bits": 4}},
                    {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
                    {"quantization_config": {"quant_method": "hqq"}},
                    {"quantization_config": 3},
                    {"model_type": "evil", "auto_map": {"AutoModelForCausalLM": "code.Model"}},
                ),
                LOADS,
            ),
            (
                ({"vocab_size": 7, "pad_token_id": 0}, {"num_key_value_heads": 1}, {"intermediate_size": 3}),
                "weights that fit the configuration, got model.",
            ),
            (({"model_type": "bert"},), "weights for all parameters, got none for "),
        )
        for content in contents
        for name in [str(content)[:40]]
    },
)
WEIGHTS = Group(
    TRAIN,
    "model/model.safetensors",
    "model.path: expected ",
    {
        "empty": (empty, LOADS),
        "header": (b"\xff" * 16, LOADS),
        "no JSON": ((5).to_bytes(8, "little") + b"{a}  ", LOADS),
        "folder": (folder, LOADS),
        "loop": (loop, LOADS),
        "one layer missing": (without_a_layer, "weights for all parameters, got none for 12 such as model.layers.1."),
    },
)
TOKENIZER = Group(
    TRAIN,
    "model/tokenizer.json",
    f"model.path: expected {LOADS}",
    {text: (text, "") for text in ("[]", "null", "{}", "3", "{", "")},
)
TOKENIZER_CONFIG = Group(
    TRAIN,
    "model/tokenizer_config.json",
    "model.path: expected a ",
    {
        "list": ("[]", "model that transformers can load, got 'model': "),
        "token": ({"eos_token": 3}, "model that transformers can load, got 'model': "),
        "added tokens": ({"added_tokens_decoder": 3}, "model that transformers can load, got 'model': "),
        "side": ({"padding_side": "up"}, "model that transformers can load, got 'model': "),
        "templates": ({"chat_template": [1]}, "model that transformers can load, got 'model': "),
        "template": ({"chat_template": 3}, "tokenizer whose chat template is text, got int"),
    },
)
GROUPS = [TEMPLATE, MODEL, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG]
