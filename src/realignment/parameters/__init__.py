"""Every parameter, typed, checked before any node runs. Kedro builds them from `conf/*/parameters_*.yml`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from realignment.parameters.base import ExchangeTemplate, ModelParameters, Parameters, Share
from realignment.parameters.corrections import CorrectionsParameters, QualityParameters
from realignment.parameters.judging import BatchParameters, JudgingParameters, RayParameters
from realignment.parameters.oracles import (
    CascadeParameters,
    ChatParameters,
    HumanParameters,
    LocalLMParameters,
    OracleParameters,
    TextClassifierParameters,
    VoteParameters,
)
from realignment.parameters.principles import ConstitutionParameters, PrinciplesParameters

__all__ = [
    "AlignParameters",
    "AuditParameters",
    "BatchParameters",
    "CapabilityParameters",
    "CascadeParameters",
    "ChatParameters",
    "ClassifierParameters",
    "ConstitutionParameters",
    "CorrectionsParameters",
    "EvaluationParameters",
    "GoldParameters",
    "HumanParameters",
    "ImpactParameters",
    "IntakeParameters",
    "JudgingParameters",
    "LocalLMParameters",
    "LoraParameters",
    "LossParameters",
    "ModelParameters",
    "OracleParameters",
    "Parameters",
    "PrinciplesParameters",
    "PromotionParameters",
    "QualityParameters",
    "RayParameters",
    "ReviewParameters",
    "Share",
    "StreamingParameters",
    "TextClassifierParameters",
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


class AuditParameters(Parameters):
    """How the oracle is audited, and how wrong it may be."""

    truth: Literal["labels", "people"] = Field(
        "labels",
        description="labels: the columns chosen_complies, rejected_complies; people: imported verdicts",
    )
    size: int = Field(100, ge=10, description="Pairs to audit, equally many of every disposition")
    repeats: int = Field(1, ge=0, description="Times that the oracle judges the audited responses again")
    compare: tuple[OracleParameters, ...] = Field(
        (), description="Other oracles that judge the audited responses too, each with its section"
    )
    max_misrouted: Share = Field(
        0.2,
        description="A larger share of pairs with a wrong disposition, as far as it is known, stops the run "
        "before training (paper: TPA falls from 70.7 to 61.5 at 20 % oracle noise)",
    )


class ClassifierParameters(Parameters):
    """How `train_classifier` makes a text classifier that judges."""

    pipeline: str = Field(
        "realignment.oracles.classifier:build_pipeline",
        pattern=r"^[\w.]+:\w+$",
        description="module:function that makes an unfitted scikit-learn pipeline over texts from a seed",
    )
    sequence_classifier: TextClassifierParameters | None = Field(
        None, description="Calibrate this sequence classifier instead of training a pipeline"
    )
    template: ExchangeTemplate = Field(
        "topic_{domain} {response}",
        description="What the pipeline reads: {prompt}, {response}, {domain}",
    )
    calibration: Literal["platt", "isotonic"] = Field(
        "platt", description="platt: two numbers; isotonic: any rising curve, for a thousand labels or more"
    )
    folds: int = Field(5, ge=2, description="Of the cross-validation, by prompt")


def _as_list(given: Any) -> Any:
    """One text is a list of one: a list cannot be given on the command line."""
    return (given,) if isinstance(given, str) else given


class ReviewParameters(Parameters):
    """What people are asked to judge."""

    limit: int | None = Field(None, ge=1, description="At most so many REVIEW pairs, at random; null: all")
    audit: bool = Field(True, description="Ask for the audit sample too; false: only the pairs in review")
    corrections: int = Field(
        0,
        ge=0,
        description="So many corrections of `verified_corrections` too, at most: equally many of every "
        "writer and verdict of the verifier",
    )
    same_as: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        (),
        description="Digests of earlier texts of the policy: verdicts given under them are imported as given "
        "under what it says now, because the edit does not matter",
    )


class TriageParameters(Parameters):
    """Verdict pairs → dispositions."""

    min_confidence: Share = Field(0.5, description="Below this a verdict counts as not known")
    max_punish_share: Share = Field(0.5, description="Above this the run warns of utility collapse")


class StreamingParameters(Parameters):
    """What `judge_stream` hands on."""

    max_retain: int | None = Field(
        None,
        ge=1,
        description="At most so many RETAIN pairs in `retain_pairs` and `pairs`, drawn at random by `seed`; "
        "null: all",
    )


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
    error_rate: Annotated[float, Field(ge=0, lt=0.5)] | Literal["audited"] = Field(
        0.0, description="ε of the robust loss: one for all pairs, or audited: each pair's own, by the audit"
    )


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
    engine: Literal["ghost", "jvp", "finite_difference"] = Field(
        "ghost",
        description="ghost: one backward a batch, exact; jvp: forward mode, exact, keeps no activations; "
        "finite_difference: two forwards, approximate, float32 alone",
    )
    curvature: Literal["identity", "diagonal_fisher", "kfac"] = Field(
        "identity", description="H in -g_J' H^-1 g_i: the paper's identity, or the Fisher information"
    )
    damping: float = Field(0.1, gt=0, description="Added to the Fisher, relative to its mean")
    curvature_pairs: int = Field(128, ge=1, description="Conflicts on which the Fisher is estimated")
    token_budget: int = Field(2048, ge=1, description="Tokens of a forward pass")


class TrainingParameters(Parameters):
    """How the model is trained; `trainer` passes anything else on to transformers' TrainingArguments."""

    lora: LoraParameters | None = Field(description="The adapter; null trains every parameter")
    max_response_tokens: int = Field(256, ge=2, description="Where a response is cut, end-of-turn included")
    learning_rate: float = Field(1e-4, gt=0, description="At the peak of the cosine schedule")
    epochs: float = Field(1.0, gt=0, description="Passes over the training pairs; a fraction is allowed")
    batch_size: int = Field(12, ge=1, description="Pairs that the loss is a mean over")
    token_budget: int | None = Field(
        4096, ge=1, description="Tokens of a forward pass: a larger batch is taken in parts; null: in one"
    )
    accumulation_steps: int = Field(1, ge=1, description="Batches of an optimizer step")
    autocast: bool = Field(
        False,
        description="Multiply in bfloat16 while all weights stay in float32 (mixed precision), in scores and "
        "training; needs `model.dtype: float32`",
    )
    reference: Literal["same_batch", "states", "top256"] = Field(
        "same_batch",
        description="Of the KL. same_batch: one more forward of the retained pairs, adapters off (or a "
        "frozen copy); states: hidden states kept on disk, exact but for rounding in half precision; top256: "
        "approximate, 2 KiB a token",
    )
    fresh_weights_every: int | None = Field(
        None,
        ge=1,
        description="Take every batch's impact weights anew at the present parameters, and the gold gradient "
        "after so many steps k, which adds gold.size / (batch_size k) to training; null: the weights of the "
        "stage `impact`",
    )
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
    token_budget: int = Field(2048, ge=1, description="Tokens of a batch of held-out pairs")
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
