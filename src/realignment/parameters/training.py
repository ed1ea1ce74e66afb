"""Loss, adapter, impact weights and training; and how the old model is made."""

from typing import Annotated, Any, Literal

from pydantic import Field

from realignment.parameters.base import Parameters, Share


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
