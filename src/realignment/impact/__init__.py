"""Alignment impact weights: how much training on a conflict serves the gold batch (method.md, section 5).

`scores` computes the gold gradient and every pair's score, `scoring` runs both over a data set, `weights`
turns scores into weights. `ghost`, `layers`, `directional` and `curvature` are the gradient mathematics.
"""

from realignment.impact.scores import gold_gradient, gradient_norm, impact_scores
from realignment.impact.scoring import compute_gold_gradient, precondition, score_conflicts
from realignment.impact.weights import (
    attach_weights,
    check_scores,
    impact_weights,
    report_weights,
    tabulate_weights,
)

__all__ = [
    "attach_weights",
    "check_scores",
    "compute_gold_gradient",
    "gold_gradient",
    "gradient_norm",
    "impact_scores",
    "impact_weights",
    "precondition",
    "report_weights",
    "score_conflicts",
    "tabulate_weights",
]
