"""Parameters of `training`: the hybrid loss, the adapter, and the optimisation."""

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
    punish_weight: float = Field(1.0, ge=0, description="λ_II, weight of the PUNISH pairs")
    kl_weight: float = Field(0.1, ge=0, description="α_KL, weight of the KL divergence on retained pairs")
    retain_weight: float = Field(
        0.0,
        ge=0,
        description="λ_R, weight of the RETAIN pairs' own loss (preference, anchor); TRACE has 0",
    )
    anchor_weight: float = Field(
        0.0, ge=0, description="Weight of −log π(y⁺)/|y⁺| where a pair has a compliant answer; TRACE has 0"
    )
    error_rate: Annotated[float, Field(ge=0, lt=0.5)] | Literal["audited"] = Field(
        0.0,
        description="ε of the robust loss: one value for all pairs, or audited: a value for each pair, "
        "measured by the audit",
    )


class LoraParameters(Parameters):
    """A LoRA adapter; null instead of this mapping trains every parameter."""

    rank: int = Field(32, ge=1, description="r, rank of the update of each matrix")
    alpha: float = Field(16, gt=0, description="α; the update is scaled by α/r")
    target_modules: str | tuple[str, ...] = Field(
        ("q_proj", "v_proj"), description="Layers by name, or all-linear"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="In training only; scores are taken without it")


class TrainingParameters(Parameters):
    """Training of the model; `trainer` passes other arguments on to transformers' TrainingArguments."""

    lora: LoraParameters | None = Field(description="The adapter; null trains every parameter")
    max_response_tokens: int = Field(
        256, ge=2, description="Tokens after which a response is cut, end-of-turn included"
    )
    learning_rate: float = Field(1e-4, gt=0, description="Learning rate at the peak of the cosine schedule")
    epochs: float = Field(1.0, gt=0, description="Passes over the training pairs; a fraction is allowed")
    batch_size: int = Field(12, ge=1, description="Pairs over which the loss is a mean")
    token_budget: int | None = Field(
        4096,
        ge=1,
        description="Tokens per forward pass; a larger batch is computed in parts; null: in one part",
    )
    accumulation_steps: int = Field(1, ge=1, description="Batches per optimizer step")
    autocast: bool = Field(
        False,
        description="Multiply in bfloat16 while all weights stay in float32 (mixed precision), in scores and "
        "training; needs `model.dtype: float32`",
    )
    reference: Literal["same_batch", "states", "top256"] = Field(
        "same_batch",
        description="Source of the reference distribution in the KL. same_batch: one more forward pass of "
        "the retained pairs without the adapter (or through a frozen copy); states: hidden states cached on "
        "disk, exact up to rounding in half precision; top256: approximate, 2 KiB per token",
    )
    fresh_weights_every: int | None = Field(
        None,
        ge=1,
        description="Online weights: compute the impact weights of every batch at the present parameters, "
        "and the gold gradient every k steps, where k is this number; adds a share gold.size / "
        "(batch_size k) to the cost of training; null: use the weights of the stage `impact`",
    )
    warmup_share: Share = Field(0.1, description="Share of the steps in which the learning rate rises")
    max_grad_norm: float = Field(1.0, gt=0, description="Larger gradients are scaled down to this norm")
    max_kl: float = Field(
        gt=0,
        description="KL divergence on retained pairs, in nats per token, above which training stops early",
    )
    logging_steps: int = Field(1, ge=1, description="Steps between two rows of `training_history`")
    checkpoint_steps: int = Field(50, ge=1, description="Steps between two checkpoints to resume from")
    trainer: dict[str, Any] = Field(
        {}, description="Other arguments of transformers' TrainingArguments, by name"
    )
