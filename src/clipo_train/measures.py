"""What a step's rollouts were like: numbers to log, and samples to look at."""

import torch

from clipo_ops import aggregate, degenerate_fraction, negative_credit, process_gap
from clipo_train.collector import informative
from clipo_train.evaluation import summarize
from clipo_train.learner import Scores
from clipo_train.metrics import defined
from clipo_train.objective import Credit
from clipo_train.rollout import Rollouts
from clipo_train.types import Message


def describe(rollouts: Rollouts, scores: Scores, credit: Credit) -> dict[str, float]:
    """Metrics of a batch of rollouts; see the metrics glossary."""
    generation = rollouts.generation
    penalised = negative_credit(credit.advantages, rollouts.success).sum() / rollouts.success.sum()
    return (
        {f"rollout/{name}": value for name, value in summarize(rollouts.verdicts).items()}
        | {
            "rollout/response_length": float(generation.response_mask.sum(1).float().mean()),
            "rollout/informative": float(informative(rollouts).float().mean()),
            "rollout/truncated": float((~generation.finished).float().mean()),
            "reward/outcome": float(credit.outcome.mean()),
            "reward/contrastive": float(credit.contrastive.mean()),
            "reward/overlong": float(credit.overlong.mean()),
            "reward/kl": float(credit.kl.mean()),
            "reward/total": float(credit.total.mean()),
            "groups/degenerate": float(degenerate_fraction(credit.total, rollouts.groups)),
            "advantage/nonzero": float((credit.advantages != 0).float().mean()),
            "policy/entropy": float(aggregate(scores.entropy, generation.response_mask)),
        }
        | defined({"advantage/negative_among_right": float(penalised)})
    )


def describe_process(rollouts: Rollouts, credit: Credit) -> dict[str, float]:
    """Whether the contrastive reward tells right from wrong reasoning.

    Nothing without such a reward, or where the verifier does not judge the reasoning.
    """
    process = [verdict.process for verdict in rollouts.verdicts]
    if None in process or not credit.contrastive.any():
        return {}
    judged = torch.tensor(process, device=credit.contrastive.device)
    reward, advantage = (
        process_gap(values, rollouts.success, judged, rollouts.groups)
        for values in (credit.contrastive, credit.advantages)
    )
    return defined(
        {
            "contrastive/process_gap": float(reward.mean_gap),
            "contrastive/process_auc": float(reward.auc),
            "advantage/process_gap": float(advantage.mean_gap),
        }
    )


def sample_rows(step: int, rollouts: Rollouts, credit: Credit, count: int) -> list[dict[str, object]]:
    """Rollouts to look at: as many groups' first ones as there is room for, then their second ones, and so on."""
    order = torch.arange(len(rollouts.verdicts)).view(-1, rollouts.group_size).T.flatten().tolist()
    return [
        {
            "step": step,
            "prompt": _text(rollouts.examples[i].prompt),
            "completion": rollouts.generation.texts[i],
            "answer": rollouts.examples[i].answer,
            "success": rollouts.verdicts[i].success,
            "process": rollouts.verdicts[i].process,
            "outcome": float(credit.outcome[i]),
            "contrastive": float(credit.contrastive[i]),
            "advantage": float(credit.advantages[i]),
        }
        for i in order[:count]
    ]


def _text(prompt: str | tuple[Message, ...]) -> str:
    return (
        prompt
        if isinstance(prompt, str)
        else "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
    )
