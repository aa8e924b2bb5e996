"""What users get wrong, and how the line begins that they get; `test_bad_input.py` has the files that these name."""

from typing import NamedTuple


class Case(NamedTuple):
    """What is given after `clipo`, and how the line begins that it gets."""

    arguments: str
    message: str


TRAIN, RESUME, EVAL = "train config.yaml", "train config.yaml --run_dir done --steps 4 --resume", "eval config.yaml"
COMMAND_LINE = [
    Case("trane", "command: expected one of train, eval, report, study, export, verify-data, got 'trane'"),
    Case("train", "config: expected CONFIG.yaml after train, got nothing"),
    Case("train --steps", "config: expected CONFIG.yaml after train, got '--steps'"),
    Case(f"{TRAIN} --steps", "--steps: expected a value, got none"),
    Case(f"{TRAIN} --nope 3", "--nope: expected a field of the configuration, got this unknown one"),
    Case(f"{TRAIN} extra", "extra: expected a field of the configuration, got this unknown one"),
    Case(f"{TRAIN} --clipo.weight big", "clipo.weight: expected a valid number, "),
    Case(f"{TRAIN} --steps 0", "steps: expected greater than or equal to 1, got "),
    Case(f"{EVAL} --suite", "--suite: expected a value, got none"),
    Case("report done --open", "--open: expected nothing more, got this"),
    Case("report notes", "run: expected a folder with a metrics.jsonl of at least one line, got 'notes'"),
    Case("study", "study: expected STUDY.yaml after study, got nothing"),
    Case("study nope.yaml", "config: expected a YAML file, got 'nope.yaml', which is not a file"),
    Case("study list.yaml --seeds few", "--seeds: expected a value of type int, got 'few'"),
    Case("export done", "out: expected a new folder after RUN, got nothing"),
    Case("export done out more", "more: expected nothing more, got this"),
    Case("export done out --step two", "--step: expected a value of type int, got 'two'"),
    Case("verify-data good.jsonl --timeout soon", "--timeout: expected a value of type float, got 'soon'"),
    Case("verify-data good.jsonl --nope", "--nope: expected nothing more, got this"),
    Case("verify-data nowhere.jsonl", "data: expected a file, got 'nowhere.jsonl', which is not one"),
    Case("verify-data good.jsonl --verifier no", "data.verifier: expected one of "),
    *(
        Case(f"verify-data good.jsonl --timeout {seconds}", "--timeout: expected more than 0 seconds, got ")
        for seconds in ("-1", "0", "nan", "-inf")
    ),
    Case("verify-data good.jsonl --limit 0", "--limit: expected at least 1 row, got 0"),
    Case("verify-data good.jsonl --limit -3", "--limit: expected at least 1 row, got -3"),
    Case(f"verify-data good.jsonl --limit {'9' * 5000}", "--limit: expected a value of type int, got '999"),
    Case("verify-data good.jsonl --answer nope", "data: expected prompt and answer in line 1 of 'good.jsonl', got no"),
    Case(f"verify-data {'a' * 300}.jsonl", "aaa"),
    Case("trane\x1b[31m", "command: expected one of "),
    Case(f"{TRAIN} --resume=maybe", "--resume: expected no value, got 'maybe'"),
    Case(f'{TRAIN} --clipo {{"dim":}}', "clipo: expected a value that can be read, got something else"),
    Case(f"{TRAIN} --steps {'9' * 5000}", "steps: expected a valid value, unable to parse"),
    Case(f"{TRAIN} --clipo {'[' * 3000}", "command line: expected values, got one that is nested too deeply"),
    Case(f"{TRAIN} --data.options size=5,size=6", "data.options: expected every name once, got 'size' twice"),
    Case(f"{TRAIN} --data.verifier_timeout -1", "data.verifier_timeout: expected greater than 0, got '-1'"),
    Case("report done --output nowhere/page.html", "output: expected a file in a folder that exists, got 'nowhere/pag"),
    Case(
        "report done done", "run: expected one run of each seed and configuration, got seed 0 in 'done' and in 'done'"
    ),
    Case(f"report {'a' * 300}", "aaa"),
]
CONFIGURATION = [
    Case("train nope.yaml", "config: expected a YAML file, got 'nope.yaml', which is not a file"),
    Case("train notes", "config: expected a YAML file, got 'notes', which is not a file"),
    Case("train list.yaml", "config: expected a mapping of fields in 'list.yaml', got list"),
    Case("train empty.yaml", "config: expected a mapping of fields in 'empty.yaml', got NoneType"),
    Case("train broken.yaml", "config: expected YAML, got 'broken.yaml': mapping values are not allowed here"),
    Case("train latin.yaml", "config: expected YAML, got 'latin.yaml': "),
    Case("train tag.yaml", "config: expected YAML, got 'tag.yaml': could not determine a constructor"),
    Case("train number.yaml", "1: expected a field of the configuration, got this unknown one"),
    Case("train stepz.yaml", "stepz: expected a field of the configuration, got this unknown one; did you mean steps?"),
    Case(
        "train temprature.yaml",
        "clipo.temprature: expected a field of the configuration, got this unknown one; did you mean clipo.temperature",
    ),
    Case(
        f"{TRAIN} --clipo.wieght 1",
        "--clipo.wieght: expected a field of the configuration, got this unknown one; did y",
    ),
    Case(
        f"{TRAIN} --model.lora.ranks=3", "--model.lora.ranks=3: expected a field of the configuration, got this unknown"
    ),
    Case(
        "train twice.yaml", "config: expected YAML, got 'twice.yaml': found the key 'clipo' of line 1 again in line 3"
    ),
    Case(
        "train twice_inside.yaml", "config: expected YAML, got 'twice_inside.yaml': found the key 'dim' of line 1 aga"
    ),
    Case(
        "train itself.yaml", "config: expected YAML, got 'itself.yaml': found an alias inside its own anchor in line 1"
    ),
    Case("train deep.yaml", "config: expected YAML, got 'deep.yaml': nested too deeply"),
    Case("train bomb.yaml", "config: expected YAML, got 'bomb.yaml': found more than 100000 values in line "),
    Case("train date.yaml", "config: expected YAML, got 'date.yaml': month must be in 1..12"),
    Case("train digits.yaml", "config: expected YAML, got 'digits.yaml': Exceeds the limit"),
    Case("train escape.yaml", "config: expected YAML, got 'escape.yaml': unacceptable character #x001b"),
    Case("train line_break.yaml", "a\\nb: expected a field of the configuration, got this unknown one"),
    Case("train nul.yaml", "run_dir: expected names of at most 200 bytes and without NUL, got 'a\\x00b'"),
    Case("train long_list.yaml", "steps: expected a valid integer, got [0, 1, 2, "),
    Case(f"{TRAIN} --run_dir {'a' * 300}", "run_dir: expected names of at most 200 bytes and without NUL, got 'aaa"),
    Case(f"train {'a' * 300}", "config: expected a YAML file, got 'aaa"),
    Case(f"{TRAIN} --data.options size", "data.options: expected NAME=VALUE or a JSON object, got 'size'"),
    Case(f"{TRAIN} --data.options =3", "data.options: expected NAME=VALUE or a JSON object, got '=3'"),
    Case(f"{TRAIN} --data.columns prompt", "data.columns: expected NAME=VALUE, a list or JSON, got something else"),
    Case(f"{TRAIN} --clipo.floor -inf", "clipo.floor: expected a finite number, got '-inf'"),
    Case(f"{TRAIN} --clipo.weight -5e-1", "clipo.weight: expected greater than or equal to 0, got '-5e-1'"),
    Case("train section.yaml", "clipo: expected a dictionary or an instance of ClipoConfig, got 3"),
    Case("train many.yaml", "steps: expected a valid integer, unable to parse string as an integer, got 'many'"),
    Case("train betas.yaml", "optimizer.betas: expected at most 2 items after validation, not 3, got [1, 2, 3]"),
    Case("train nan.yaml", "clipo.temperature: expected a finite number, got nan"),
    Case("train infinite.yaml", "optimizer.learning_rate: expected a finite number, got inf"),
    Case(f"{TRAIN} --seed -1", "seed: expected greater than or equal to 0, got "),
    Case(f"{TRAIN} --seed 99999999999", "seed: expected less than 2147483648, got "),
    Case(f"{TRAIN} --clipo.floor 1", "clipo.floor: expected less than or equal to 0, got "),
    Case(f"{TRAIN} --rollout.group_size 3", "rollout.group_size: expected a divisor of rollout.batch_size = 16, got 3"),
    Case(
        f"{TRAIN} --optimizer.micro_batch_size 3",
        "optimizer.micro_batch_size: expected a divisor of optimizer.minibatch_size = 8, got 3",
    ),
    Case(f"{TRAIN} --loss.aggregation mean", "loss.aggregation: expected 'token-mean', "),
    Case(
        f"{TRAIN} --loss.rollout_correction truncated",
        "loss.rollout_correction: expected 'none' where the policy itself samples, as by rollout.engine "
        "'transformers', "
        "got 'truncated'",
    ),
    Case(
        f"{TRAIN} --loss.surrogate vespo --loss.rollout_level sequence",
        "loss.rollout_level: expected 'token' with loss.surrogate 'vespo', whose weight multiplies the tokens' own, "
        "got 'sequence'",
    ),
    Case(
        f"{TRAIN} --loss.kl_weight 0.1 --loss.kl_estimator k1",
        "loss.kl_estimator: expected another with loss.kl_in 'loss', where the gradient of 'k1' is noise, got 'k1'",
    ),
    Case(f"{TRAIN} --checkpoint.keep 0", "checkpoint.keep: expected greater than or equal to 1, got "),
    Case(
        f"{TRAIN} --data.columns question=prompt",
        "data.columns.question.[key]: expected 'prompt', 'answer' or 'source'",
    ),
    Case(f"{TRAIN} --logging.trackers wandb", "logging.trackers: expected an installed wandb, got none"),
    Case(f"{TRAIN} --logging.trackers excel", "logging.trackers.0: expected 'aim', "),
    Case(f"{TRAIN} --run_dir done", "run_dir: expected a new folder (or resume), got 'done', which exists"),
    Case(f"{TRAIN} --run_dir model/config.json", "run_dir: expected a new folder (or resume), got 'model/config.json'"),
    Case(f"{TRAIN} --run_dir config.yaml/run", "run_dir: expected a folder that can be written, got 'config.yaml/run'"),
]
DATA = [
    Case(f"{TRAIN} --data.train {source}", f"data: expected {message}")
    for source, message in {
        "no.jsonl": "a file, got 'no.jsonl', which is not one",
        "folder.jsonl": "a file, got 'folder.jsonl', which is not one",
        "table.csv": "arithmetic:SPLIT, reasoning_gym:TASK, hf:NAME or a .parquet or .jsonl file, got 'table.csv'",
        "arithmetic:test": "arithmetic:SPLIT with one of train, heldout, long, rep, got 'test'",
        "reasoning_gym:nope": "a task of reasoning-gym and its options, got 'nope', {'seed': 0}: Dataset 'nope' not",
        "hf:nowhere": "a data set that datasets can load, got 'nowhere': ",
        "no_prompt.jsonl": "prompt and answer in line 1 of 'no_prompt.jsonl', got no field 'prompt'",
        "no_answer.jsonl": "prompt and answer in line 2 of 'no_answer.jsonl', got no field 'answer'",
        "null.jsonl": "prompt and answer in line 1 of 'null.jsonl', got an answer that is null",
        "number.jsonl": "prompt and answer in line 1 of 'number.jsonl', got a prompt that is int, not text or messages",
        "list.jsonl": "prompt and answer in line 1 of 'list.jsonl', got a row that is list, not an object",
        "no_role.jsonl": "prompt and answer in line 1 of 'no_role.jsonl', got no field 'role'",
        "strings.jsonl": "prompt and answer in line 1 of 'strings.jsonl', got a message that is str, not an object",
        "empty_prompt.jsonl": "prompts of at least one token, got none in line 1 of 'empty_prompt.jsonl'",
        "empty.jsonl": "at least one example in 'empty.jsonl', got none",
        "broken.jsonl": "JSON in line 1 of 'broken.jsonl', got \"{'prompt': 1}\"",
        "latin.jsonl": "text in UTF-8, got 'latin.jsonl': ",
        "broken.parquet": "a parquet file, got 'broken.parquet': ",
        "column.parquet": "prompt and answer in row 0 of 'column.parquet', got no field 'answer'",
    }.items()
] + [
    Case(f"{TRAIN} --data.verifier nonsense", "data.verifier: expected one of auto, arithmetic, exact_match, "),
    Case(f"{TRAIN} --data.verifier no_such:f", "data.verifier: expected module:function, got 'no_such:f': No module"),
    Case(f"{TRAIN} --data.train good.jsonl --data.columns prompt=task", "data: expected prompt and answer in line 1"),
    Case(
        f"{TRAIN} --rollout.max_prompt_tokens 3",
        "rollout.max_prompt_tokens: expected at least 8, the shortest prompt, got 3",
    ),
]
MODEL = [
    Case(
        f"{TRAIN} --model.path no/such/model", "model.path: expected a model that transformers can load, got 'no/such/m"
    ),
    *(
        Case(f"{TRAIN} --model.path package:{name}", f"model.path: expected an installed Python package, got '{name}'")
        for name in ("", "a.b", ".x", "os")
    ),
    Case(f"{TRAIN} --model.path {'a' * 300}", "model.path: expected a model that transformers can load, got 'aaa"),
    Case(f"{TRAIN} --model.path package:no_such", "model.path: expected an installed Python package, got 'no_such'"),
    Case(
        f"{TRAIN} --model.path truncated", "model.path: expected a model that transformers can load, got 'truncated': "
    ),
    Case(
        f"{TRAIN} --model.path no_tokenizer",
        "model.path: expected a tokenizer with words, got none in 'no_tokenizer': a file is missing",
    ),
    Case(f"{TRAIN} --model.path no_config", "model.path: expected a model that transformers can load, got 'no_config'"),
    Case(
        f"{TRAIN} --model.path no_weights", "model.path: expected a model that transformers can load, got 'no_weights'"
    ),
    Case(f"{TRAIN} --model.path pickled", "model.path: expected a model that transformers can load, got 'pickled': "),
    Case(f"{TRAIN} --model.path encoder", "model.path: expected a model that transformers can load, got 'encoder': "),
    Case(
        f"{TRAIN} --model.path no_end",
        "model.path: expected an end-of-sequence token of the tokenizer or model, got none",
    ),
    Case(
        f"{TRAIN} --model.path small",
        "model.path: expected the model's own tokenizer, for its 8 tokens, got one with a token ",
    ),
    Case(f"{TRAIN} --model.gguf_file x.gguf", "model.path: expected a model that transformers can load, got 'model': "),
    Case(
        f"{TRAIN} --data.train chat.jsonl",
        "model.path: expected a tokenizer with a default chat template for the messages of",
    ),
]
ENGINE = [
    Case(f"{TRAIN} --rollout.engine sglang", "rollout.engine: expected 'transformers' or 'vllm', got 'sglang'"),
    Case(
        f"{TRAIN} --rollout.engine vllm",
        "rollout.engine: expected an installed vLLM, got none (No module named 'vllm')",
    ),
    Case(
        f"{TRAIN} --rollout.engine vllm --rollout.max_new_tokens 121",
        "rollout.max_new_tokens: expected at most 120 after a prompt of 8 tokens, since the model has 128 positions",
    ),
    Case(f"{TRAIN} --rollout.temperature 0", "rollout.temperature: expected greater than 0, got "),
    Case(
        f"{TRAIN} --rollout.gpu_memory_utilization 2",
        "rollout.gpu_memory_utilization: expected less than or equal to 1",
    ),
]
EVALUATION = [
    Case("eval notes", "run: expected the folder of a finished run, got 'notes', which has no final policy"),
    Case("eval nowhere", "config: expected a YAML file, got 'nowhere', which is not a file"),
    Case("eval bare.yaml", "evaluation.sets: expected at least one set, got none"),
    Case(f"{EVAL} --evaluation.samples 4", "evaluation.temperature: expected more than 0 for 4 samples, which greedy "),
    Case(f"{EVAL} --evaluation.sets a=arithmetic:b", "data: expected arithmetic:SPLIT with one of "),
    Case(
        f"{EVAL} --evaluation.sets a/b=arithmetic:rep",
        "evaluation.sets: expected names without '/', and not 'average', got 'a/b'",
    ),
    Case(f"{EVAL} --evaluation.verifier no", "data.verifier: expected one of "),
    Case(f"{EVAL} --suite track3 --data x", "suite: expected one of track1, track2, got 'track3'"),
    Case(f"{EVAL} --suite track1", "suite: expected --suite and --data FOLDER, or neither, got one of them"),
    Case(
        f"{EVAL} --suite track1 --data nowhere", "data: expected a file, got 'nowhere/gsm8k.parquet', which is not one"
    ),
]
CHECKPOINT = [
    Case(
        f"{RESUME} --run_dir notes", "run_dir: expected the folder of a run or a new one, got 'notes', which has no con"
    ),
    Case(
        f"{RESUME} --run_dir lone",
        "run_dir: expected the folder of a run to go on with or a new one, got 'lone', which has config.yaml but no ch",
    ),
    Case(f"{RESUME} --steps 1", "steps: expected at least the checkpoint's 2, got 1"),
    Case(
        f"{RESUME} --clipo.weight 0.3 --optimizer.betas=0.5,0.6",
        "resume: expected the configuration that the run began with, got clipo.weight 0.3 (was 0.2), "
        "optimizer.betas [0.5, 0.6] (was [0.9, 0.999]); ",
    ),
    Case(
        f"{RESUME} --clipo.enabled false", "resume: expected the configuration that the run began with, got clipo.enab"
    ),
    Case(
        f"{RESUME} --model.path no_end", "resume: expected the configuration that the run began with, got model.path 'n"
    ),
    Case(
        f"{RESUME} --data.options size=3", "resume: expected the configuration that the run began with, got data.option"
    ),
    Case("export notes out", "run: expected the folder of a run with a checkpoint, got 'notes'"),
    Case("export done out --step 1", "step: expected one of 2, got 1"),
    Case("export done notes", "out: expected a new folder, got 'notes', which exists"),
    Case("export done a\udcff", "out: expected text in UTF-8, got 'a\\udcff'"),
    Case(f"export done {'a' * 300}", "out: expected names of at most 200 bytes and without NUL, got 'aaa"),
    Case(f"export done out --step {'9' * 5000}", "--step: expected a value of type int, got '999"),
    Case(f"export {'a' * 300} out", "aaa"),
    Case(f"{TRAIN} --run_dir a\udcff", "run_dir: expected text in UTF-8, got 'a\\udcff'"),
    Case("export done config.yaml/out", "out: expected a folder that can be written, got 'config.yaml/out'"),
]

CASES = [*COMMAND_LINE, *CONFIGURATION, *DATA, *MODEL, *ENGINE, *EVALUATION, *CHECKPOINT]
