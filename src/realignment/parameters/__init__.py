"""Every parameter, typed, checked before any node runs. Kedro builds them from `conf/*/parameters_*.yml`."""

from typing import Any, Literal

from pydantic import Field

from realignment.parameters.base import ModelParameters, Parameters, Share
from realignment.parameters.oracles import (
    CascadeParameters,
    ChatParameters,
    JudgingParameters,
    LocalLMParameters,
    OracleParameters,
    VoteParameters,
)

__all__ = [
    "AlignParameters",
    "CapabilityParameters",
    "CascadeParameters",
    "ChatParameters",
    "EvaluationParameters",
    "GoldParameters",
    "ImpactParameters",
    "IntakeParameters",
    "JudgingParameters",
    "LocalLMParameters",
    "LoraParameters",
    "LossParameters",
    "ModelParameters",
    "OracleParameters",
    "Parameters",
    "PromotionParameters",
    "Share",
    "TrainingParameters",
    "TriageParameters",
    "VoteParameters",
]


class IntakeParameters(Parameters):
    """What is done with rows that cannot be used."""

    invalid: Literal["skip", "fail"] = Field(
        "skip", description="Rows that cannot be used: list them in `rejected_rows`, or stop"
    )
    max_prompt_chars: int = Field(8000, ge=1, description="Characters that a prompt may have")
    long_prompts: Literal["drop", "truncate", "fail"] = Field(
        "drop", description="Long prompts: list them in `rejected_rows`, keep their end, or stop"
    )
    limit: int | None = Field(None, ge=1, description="At most so many rows, drawn at random; null: all")


class TriageParameters(Parameters):
    """Verdict pairs → dispositions."""

    min_confidence: Share = Field(0.5, description="Below this a verdict counts as not known")
    max_punish_share: Share = Field(0.5, description="Above this the run warns of utility collapse")


class GoldParameters(Parameters):
    """Held-out pairs and gold batch."""

    size: int = Field(ge=3, description="B (paper: 64-100)")
    composition: Literal["random", "policy_targeted"] = Field(
        "random", description="policy_targeted draws the conflicts evenly over the broken rules"
    )
    held_out_share: float = Field(
        0.1, ge=0, lt=0.9, description="Share of each disposition's prompts that only the evaluation sees"
    )


class LossParameters(Parameters):
    """The hybrid loss (method.md, section 4)."""

    beta: float = Field(0.3, gt=0, description="β, inverse temperature of every preference term")
    invert: Literal["dpo", "ipo", "robust"] = Field("dpo", description="Loss of INVERT pairs")
    punish: Literal["npo", "npo_paper", "apo_down"] = Field(
        "npo", description="Loss of PUNISH pairs without a correction; npo_paper drops the factor 2/β"
    )
    use_corrections: bool = Field(
        True, description="PUNISH pairs with a verified correction prefer it; false: `punish` for all"
    )
    punish_weight: float = Field(1.0, ge=0, description="λ_II")
    kl_weight: float = Field(0.1, ge=0, description="α_KL")
    retain_weight: float = Field(
        0.0,
        ge=0,
        description="λ_R, the RETAIN pairs' own loss (preference, anchor); 0 is TRACE",
    )
    anchor_weight: float = Field(
        0.0, ge=0, description="Weight of −log π(y⁺)/|y⁺| where a pair has a compliant answer; 0 is TRACE"
    )
    error_rate: float = Field(0.0, ge=0, lt=0.5, description="ε of the robust loss")


class LoraParameters(Parameters):
    """Adapter; null instead of this mapping trains every parameter."""

    rank: int = Field(32, ge=1, description="r, rank of the update of each matrix")
    alpha: float = Field(16, gt=0, description="α; the update is scaled by α/r")
    target_modules: str | tuple[str, ...] = Field(
        ("q_proj", "v_proj"), description="Layers by name, or all-linear"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="In training only; scores are taken without it")


class ImpactParameters(Parameters):
    """Impact scores → weights (method.md, section 5)."""

    normalize: Literal["mean_one", "l1", "uniform"] = Field(
        "mean_one", description="mean_one: per disposition; l1: the paper's; uniform: all weights are 1"
    )
    winsorize: float | None = Field(
        None, gt=0, le=1, description="Quantile that caps a disposition's largest weights; null: no cap"
    )
    length_normalize: bool = Field(False, description="Divide a score by its pair's response tokens")
    max_negative_share: Share = Field(0.5, description="A larger share of negative scores stops the run")
    token_budget: int = Field(2048, ge=1, description="Padded tokens of a batch")


class TrainingParameters(Parameters):
    """How the model is trained; `trainer` passes anything else on to transformers' TrainingArguments."""

    lora: LoraParameters | None = Field(description="The adapter; null trains every parameter")
    max_response_tokens: int = Field(256, ge=2, description="Where a response is cut, end-of-turn included")
    learning_rate: float = Field(1e-4, gt=0, description="At the peak of the cosine schedule")
    epochs: float = Field(1.0, gt=0, description="Passes over the training pairs; a fraction is allowed")
    batch_size: int = Field(12, ge=1, description="Pairs of a forward pass")
    accumulation_steps: int = Field(1, ge=1, description="Forward passes of an optimizer step")
    warmup_share: Share = Field(0.1, description="Share of the steps in which the learning rate rises")
    max_grad_norm: float = Field(1.0, gt=0, description="Larger gradients are scaled down to this norm")
    max_kl: float = Field(gt=0, description="nats per token on retained pairs; above it training stops early")
    logging_steps: int = Field(1, ge=1, description="Steps between two rows of `training_history`")
    checkpoint_steps: int = Field(50, ge=1, description="Steps between two checkpoints to resume from")
    trainer: dict[str, Any] = Field({}, description="Anything else of transformers' TrainingArguments")


class CapabilityParameters(Parameters):
    """General ability, by lm-evaluation-harness."""

    questions: str | None = Field(description="JSON Lines with question, choices, answer; null: none")
    tasks: tuple[str, ...] = Field((), description="Tasks of lm-evaluation-harness, by name")
    batch_size: int = Field(32, ge=1, description="Sequences at a time")
    limit: int | None = Field(None, ge=1, description="At most so many questions a task; null: all")


class EvaluationParameters(Parameters):
    """How before and after are compared."""

    max_new_tokens: int = Field(80, ge=1, description="Where an answer is cut")
    batch_size: int = Field(32, ge=1, description="Prompts answered at a time")
    token_budget: int = Field(2048, ge=1, description="Padded tokens of a batch of held-out pairs")
    repetition_penalty: float = Field(1.0, gt=0, description="Above 1 keeps a small model out of loops")
    folds: int = Field(5, ge=2, description="Of the cross-validation of the classifier that judges answers")
    capability: CapabilityParameters = Field(description="The check of general ability")


class PromotionParameters(Parameters):
    """The gate's limits, and the name in the registry."""

    registered_model: str = Field(min_length=1, description="Name in MLflow's registry")
    judge: Literal["rules", "classifier"] | None = Field(None, description="Whose verdicts count; null: all")
    min_agreement_gain: Share = Field(description="Least rise of agreement with the new policy")
    min_preference_gain: Share = Field(
        description="Least rise of held-out preference accuracy, where agreement was not measured"
    )
    max_over_refusal: Share = Field(description="Largest share of outside prompts with the policy applied")
    max_kl_drift: float = Field(gt=0, description="nats per token on retained held-out pairs")
    max_capability_drop: Share = Field(description="Largest loss of accuracy that is not within its interval")


class AlignParameters(Parameters):
    """DPO on the old labels, which makes an M_ref (pipeline `align`)."""

    registered_model: str = Field(min_length=1, description="Name in MLflow's registry")
    beta: float = Field(0.1, gt=0, description="β of DPO")
    learning_rate: float = Field(gt=0, description="At the start of TRL's schedule")
    epochs: float = Field(gt=0, description="Passes over the pairs")
    batch_size: int = Field(8, ge=1, description="Pairs of a step")
    max_length: int = Field(512, ge=8, description="Tokens of prompt and response; longer ones are cut")
    lora: LoraParameters | None = Field(description="The adapter; null trains every parameter")
