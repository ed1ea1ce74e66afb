"""How wrong is the oracle? A probability sample of the judged pairs, measured against the truth."""
