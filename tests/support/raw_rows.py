"""Raw preference rows, as a user's file has them, and their cleaning with the limits of most tests."""

import pandas as pd

from realignment.intake import clean_pairs


def table(*rows, **columns):
    return pd.DataFrame(list(rows) if rows else columns, dtype=object)


def clean(raw, *, invalid="skip", max_prompt_chars=1000, long_prompts="drop"):
    return clean_pairs(raw, invalid=invalid, max_prompt_chars=max_prompt_chars, long_prompts=long_prompts)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}
