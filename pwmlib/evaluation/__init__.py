"""What a policy gets in the real task, beside what the model believes; and what a planner gets that sees only the model."""

from .planning import evaluate_planner
from .scores import EVALUATION_SEED, Evaluation, evaluate_policy, summarise

__all__ = ["EVALUATION_SEED", "Evaluation", "evaluate_planner", "evaluate_policy", "summarise"]
