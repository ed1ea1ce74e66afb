"""The table of principles, whichever way they were found."""

PRINCIPLE_COLUMNS = (
    "id", "principle", "coefficient", "coefficient_low", "coefficient_high", "stability", "applies", "pairs",
    "support", "agreement", "low", "high",
)  # fmt: skip
"""`support` = `applies` / `pairs`; `agreement`: share of those where the principle predicts the choice,
with `low` and `high` its 95 % interval. Coefficients and stability are null where a language model proposed it."""
