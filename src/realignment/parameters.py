"""Every parameter, typed and checked before any node runs. Kedro builds these from `conf/*/parameters_<stage>.yml`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Parameters(BaseModel):
    """Frozen, and a name that is not listed here is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Share = Annotated[float, Field(ge=0, le=1)]


class ModelParameters(Parameters):
    """Where M_ref comes from, and how it is loaded."""

    source: str = Field(
        min_length=1,
        description="Folder, Hub id, gguf:FILE, models:/NAME@ALIAS or pypi://DISTRIBUTION==VERSION/MEMBER",
    )
    sha256: str | None = Field(None, description="Expected digest; null accepts any")
    revision: str | None = Field(None, description="Branch, tag or commit of a Hub model")
    folder: str = Field(description="Where fetched models are kept")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


class PairsParameters(Parameters):
    """What is done with rows that cannot be used."""

    invalid: Literal["skip", "fail"] = "skip"
    max_prompt_chars: int = Field(8000, ge=1)
    long_prompts: Literal["drop", "truncate", "fail"] = "drop"
    limit: int | None = Field(None, ge=1, description="At most so many rows, drawn at random; null: all")


class JudgingParameters(Parameters):
    """Which oracle labels the pairs, and how much doubt stops the run."""

    oracle: Literal["rules", "labels"]
    max_unscored: Share = 0.2
    min_stability: Share = 0.9
    stability_sample: int = Field(50, ge=0, description="Responses judged twice; 0: none")


class TriageParameters(Parameters):
    """Verdict pairs → dispositions."""

    min_confidence: Share = Field(0.5, description="Below this a verdict counts as not known")
    max_punish_share: Share = Field(0.5, description="Above this the run warns of utility collapse")


class GoldParameters(Parameters):
    """Held-out pairs and gold batch."""

    size: int = Field(ge=3, description="B (paper: 64-100)")
    composition: Literal["random", "policy_targeted"] = "random"
    held_out_share: float = Field(0.1, ge=0, lt=0.9)


class LossParameters(Parameters):
    """The hybrid loss (method.md, section 4)."""

    beta: float = Field(0.3, gt=0)
    invert: Literal["dpo", "ipo", "robust"] = "dpo"
    punish: Literal["npo", "npo_paper", "apo_down"] = "npo"
    use_corrections: bool = True
    punish_weight: float = Field(1.0, ge=0, description="λ_II")
    kl_weight: float = Field(0.1, ge=0, description="α_KL")
    anchor_weight: float = Field(0.0, ge=0)
    error_rate: float = Field(0.0, ge=0, lt=0.5, description="ε of the robust loss")


class LoraParameters(Parameters):
    """Adapter; null instead of this mapping trains every parameter."""

    rank: int = Field(32, ge=1)
    alpha: float = Field(16, gt=0)
    target_modules: str | tuple[str, ...] = ("q_proj", "v_proj")
    dropout: float = Field(0.0, ge=0, lt=1)


class ImpactParameters(Parameters):
    """Impact scores → weights (method.md, section 5)."""

    normalize: Literal["mean_one", "l1", "uniform"] = "mean_one"
    winsorize: float | None = Field(None, gt=0, le=1)
    length_normalize: bool = False
    max_negative_share: Share = 0.5
    token_budget: int = Field(2048, ge=1)


class TrainingParameters(Parameters):
    """How the model is trained; `trainer` passes anything else on to transformers' TrainingArguments."""

    lora: LoraParameters | None
    max_response_tokens: int = Field(256, ge=2)
    learning_rate: float = Field(1e-4, gt=0)
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(12, ge=1)
    accumulation_steps: int = Field(1, ge=1)
    warmup_share: Share = 0.1
    max_grad_norm: float = Field(1.0, gt=0)
    max_kl: float = Field(gt=0, description="nats per token on retained pairs; above it training stops early")
    logging_steps: int = Field(1, ge=1)
    checkpoint_steps: int = Field(50, ge=1)
    trainer: dict[str, Any] = {}


class CapabilityParameters(Parameters):
    """General ability, by lm-evaluation-harness."""

    questions: str | None = Field(description="JSON Lines with question, choices, answer; null: none")
    tasks: tuple[str, ...] = ()
    batch_size: int = Field(32, ge=1)
    limit: int | None = Field(None, ge=1)


class EvaluationParameters(Parameters):
    """How before and after are compared."""

    max_new_tokens: int = Field(80, ge=1)
    batch_size: int = Field(32, ge=1)
    token_budget: int = Field(2048, ge=1)
    folds: int = Field(5, ge=2)
    capability: CapabilityParameters


class PromotionParameters(Parameters):
    """The gate's limits, and the name in the registry."""

    registered_model: str = Field(min_length=1)
    judge: Literal["rules", "classifier"] | None = Field(None, description="Whose verdicts count; null: all")
    min_agreement_gain: Share
    min_preference_gain: Share
    max_over_refusal: Share
    max_kl_drift: float = Field(gt=0)
    max_capability_drop: Share


class AlignParameters(Parameters):
    """DPO on the old labels, which makes an M_ref (pipeline `align`)."""

    registered_model: str = Field(min_length=1)
    beta: float = Field(0.1, gt=0)
    learning_rate: float = Field(gt=0)
    epochs: float = Field(gt=0)
    batch_size: int = Field(8, ge=1)
    max_length: int = Field(512, ge=8)
    lora: LoraParameters | None
