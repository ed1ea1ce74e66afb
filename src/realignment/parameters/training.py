"""Parameters of `training`: the hybrid loss, the adapter, and the optimisation."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from realignment.parameters.base import Parameters, Share

PairKindName = Literal["invert", "punish_corrected", "punish", "retain_decided", "retain"]
"""See `objective.examples.PairKind`."""

RESPONSES_OF_TREATMENT = {"prefer": 2, "correct": 3, "suppress": None, "keep": 1, "affirm": 2, "imitate": 1}
"""Treatments (`objective.hybrid.Treatment`) and their numbers of responses; None: one or more."""


def _check_plan(plan: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    if len(plan) != 1:
        raise ValueError(f"expected one treatment, found {', '.join(plan) or 'none'}")
    ((treatment, columns),) = plan.items()
    if treatment not in RESPONSES_OF_TREATMENT:
        raise ValueError(f"there is no treatment `{treatment}`; known: {', '.join(RESPONSES_OF_TREATMENT)}")
    expected = RESPONSES_OF_TREATMENT[treatment]
    if not columns or (expected is not None and len(columns) != expected):
        raise ValueError(f"`{treatment}` takes {expected or 'one or more'} responses, found {len(columns)}")
    return plan


PlanParameters = Annotated[
    dict[str, tuple[Literal["chosen", "rejected", "correction"], ...]], AfterValidator(_check_plan)
]
"""A treatment, and the columns of its responses in its order: {prefer: [rejected, chosen]}."""


class LossParameters(Parameters):
    """The hybrid loss (method.md, section 4)."""

    beta: float = Field(0.3, gt=0, description="β, inverse temperature of every preference term")
    invert: Literal["dpo", "ipo", "robust"] = Field("dpo", description="Loss of INVERT pairs")
    punish: Literal["npo", "npo_paper", "apo_down", "ascent"] = Field(
        "npo",
        description="Loss of responses to suppress (PUNISH pairs without a correction); npo_paper drops the "
        "factor 2/β, ascent is gradient ascent on the likelihood",
    )
    use_corrections: bool = Field(
        True, description="PUNISH pairs with a verified correction prefer it; false: `punish` for all"
    )
    preference_weight: float = Field(
        1.0, ge=0, description="Weight of preference, correction and suppression terms; 0: the anchor alone"
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
    error_rate: Annotated[float, Field(ge=0, le=0.4)] | Literal["audited"] = Field(
        0.0,
        description="ε of the robust loss: one value for all pairs, at most 0.4 (near 1/2 a verdict says "
        "nothing, and 1/(1 − 2ε) explodes), or audited: a value for each pair, measured by the audit",
    )
    reduction: Literal["disposition_mean", "mean", "sum"] = Field(
        "disposition_mean",
        description="disposition_mean: each disposition's mean counts by its weight; mean: over all pairs of "
        "a batch; sum: as in the code that the paper released",
    )
    plans: dict[PairKindName, PlanParameters | None] = Field(
        {},
        description="What becomes of a kind of pair, where a method departs from TRACE: {treatment: "
        "[columns of its responses]}; null leaves the kind out of training",
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
    max_tokens: int | None = Field(
        None, ge=2, description="Tokens of prompt and response together, after which a response is cut"
    )
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        1e-4,
        description="Learning rate at the peak of the cosine schedule; auto: by the model's width",
    )
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
