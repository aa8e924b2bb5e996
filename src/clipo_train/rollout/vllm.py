"""vLLM as rollout engine: in the trainer's process, with the policy's weights handed over after every update."""

import copy
import os
import random
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clipo_train.errors import ConfigError
from clipo_train.lora import merged_weights
from clipo_train.rollout import Generation, Sampling
from clipo_train.special_tokens import settle_generation

_DEFAULTS = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # its processor cores are the trainer's too
}


class VllmEngine:
    """Samples with vLLM, on the trainer's device and from torch's default generators.

    The policy need not be on disk: vLLM gets its configuration, and its weights by `sync`, which the constructor calls.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        dtype: In which vLLM keeps weights and computes.
        max_model_len: Tokens that a prompt and its response may have together at most.
        gpu_memory_utilization: Share of the device's memory for weights and cache; a CPU takes
            VLLM_CPU_KVCACHE_SPACE GiB, by default 1.

    Raises:
        ConfigError: vLLM is not installed, or does not run this model here.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: str,
        max_model_len: int,
        gpu_memory_utilization: float,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.end_ids, self.pad_id = settle_generation(model, tokenizer)
        config = copy.deepcopy(model.config)
        config.architectures = [type(model).__name__]
        with _process_kept_as_it_is(), tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            vllm = _import_vllm()
            self._parameters = vllm.SamplingParams
            try:
                self.llm = vllm.LLM(
                    folder,
                    skip_tokenizer_init=True,
                    load_format="dummy",
                    generation_config="vllm",  # none of a model's own sampling defaults
                    logprobs_mode="processed_logprobs",
                    dtype=dtype,
                    enforce_eager=model.device.type == "cpu",
                    max_model_len=max_model_len,
                    gpu_memory_utilization=gpu_memory_utilization,
                )
                self.sync()
                self.generate([[0]], samples=1, sampling=Sampling(1, 0.0))  # some kernels refuse a model only now
            except (ValueError, RuntimeError, NotImplementedError) as error:
                reason = " ".join(str(error).split())
                raise ConfigError(
                    f"rollout.engine: expected a model that vLLM runs here, got {type(model).__name__}: {reason}"
                ) from error

    def sync(self) -> None:
        """Copies the policy's weights into vLLM."""
        weights = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": merged_weights(self.model, weights)})
        if self.model.config.get_text_config().tie_word_embeddings:
            self.llm.apply_model(_pack_head)

    def generate(self, prompts: Sequence[Sequence[int]], *, samples: int, sampling: Sampling) -> Generation:
        """See `RolloutEngine.generate`. The result depends on weights, arguments and generators alone."""
        self.llm.reset_prefix_cache()  # of older weights, or of a run that was not killed
        parameters = self._parameters(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=self.end_ids,
            logprobs=0,  # of the sampled token only
            detokenize=False,
        )
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts for _ in range(samples)]
        outputs = [output.outputs[0] for output in self.llm.generate(requests, parameters, use_tqdm=False)]
        ids = [list(output.token_ids) for output in outputs]
        prompt, prompt_mask = self._pad([request["prompt_token_ids"] for request in requests], "left")
        response, response_mask = self._pad(ids, "right")
        logprobs = torch.zeros(response.shape, device=response.device)
        logprobs[response_mask] = torch.tensor(
            [
                entry[token].logprob
                for output in outputs
                for entry, token in zip(output.logprobs, output.token_ids, strict=True)
            ],
            device=response.device,
        )
        return Generation(
            torch.cat([prompt, response], 1),
            torch.cat([prompt_mask, response_mask], 1),
            response_mask,
            [str(self.tokenizer.decode(row, skip_special_tokens=True)) for row in ids],
            torch.tensor([row[-1] in self.end_ids for row in ids], device=response.device),
            logprobs,
        )

    def close(self) -> None:
        """Frees vLLM's memory, and ends the process group that it opened."""
        self.llm.llm_engine.engine_core.shutdown()

    def _pad(self, rows: Sequence[Sequence[int]], side: str) -> tuple[Tensor, Tensor]:
        """The rows as one tensor, and where it holds them."""
        tensors = [torch.tensor(row) for row in rows]
        ones = [torch.ones(len(row), dtype=torch.bool) for row in rows]
        tokens = pad_sequence(tensors, batch_first=True, padding_value=self.pad_id, padding_side=side)
        mask = pad_sequence(ones, batch_first=True, padding_side=side)
        return tokens.to(self.model.device), mask.to(self.model.device)


def _import_vllm() -> Any:
    """The package, told to stay in this process and to be quiet."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"rollout.engine: expected an installed vLLM, got none ({error}); pip install 'clipo[vllm]'"
        ) from error
    return vllm


@contextmanager
def _process_kept_as_it_is() -> Iterator[None]:
    """Undoes what starting vLLM does to the process: it seeds every generator, and on a CPU it fixes the threads.

    Warnings in the block are dropped: they are about vLLM's own code.
    """
    set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the state is the process's
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_num_threads = set_num_threads
        torch.set_num_threads(threads)


def _pack_head(model: nn.Module) -> None:
    """Gives a tied head the new weights where vLLM keeps them in a form of their own, as it does on a CPU.

    `reload_weights` loads the embedding and passes the head over.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)
