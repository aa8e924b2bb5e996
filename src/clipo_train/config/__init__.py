"""The trainer's configuration: one tree of frozen dataclasses, from which YAML and the command line are read."""

from clipo_train.config.algorithm import ClipoConfig, LossConfig, OptimizerConfig, RewardConfig
from clipo_train.config.run import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    LoggingConfig,
    LoraConfig,
    ModelConfig,
    RolloutConfig,
    SetConfig,
    TrainConfig,
)

__all__ = [
    "CheckpointConfig",
    "ClipoConfig",
    "DataConfig",
    "EvaluationConfig",
    "LoggingConfig",
    "LoraConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RewardConfig",
    "RolloutConfig",
    "SetConfig",
    "TrainConfig",
]
