"""Raw rows → pairs. Every row becomes a pair or a rejected row with its reason: nothing disappears."""

from realignment.intake.cleaning import REJECTED_COLUMNS, Intake, clean_pairs, clean_rows

__all__ = ["REJECTED_COLUMNS", "Intake", "clean_pairs", "clean_rows"]
