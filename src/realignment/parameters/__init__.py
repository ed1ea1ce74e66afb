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
from realignment.parameters.training import (
    AlignParameters,
    ImpactParameters,
    LoraParameters,
    LossParameters,
    TrainingParameters,
)

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
    max_over_refusal: Share = Field(
        description="Largest share of outside prompts with the policy applied, unless as large before"
    )
    max_kl_drift: float = Field(gt=0, description="nats per token on retained held-out pairs")
    max_capability_drop: Share = Field(description="Largest loss of accuracy that is not within its interval")
