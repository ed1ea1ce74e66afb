"""The files of the embedded sample."""

from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data/01_raw/sample"


def read(name):
    return pd.read_json(SAMPLE / f"{name}.jsonl", lines=True)
