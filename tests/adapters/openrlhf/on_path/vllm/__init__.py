"""Stands in for vLLM: the names that OpenRLHF imports. Nothing that is tested samples."""

__version__ = "0.29.0"
SamplingParams = None
