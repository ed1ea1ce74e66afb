"""What a gold pair prefers to what, and where a PUNISH pair without correction takes its preference from."""

import numpy as np
import pytest
from made_up_pairs import make_pairs

from realignment.gold.preferences import state_preferences
from realignment.records import DataError

GOLD = make_pairs(
    {"disposition": "RETAIN"}, {"disposition": "INVERT"}, {"disposition": "PUNISH", "correction": "better 2"},
    {"disposition": "PUNISH"}, {"disposition": "PUNISH"},
)  # fmt: skip
POOL = make_pairs(
    {"disposition": "RETAIN", "chosen": "kept", "rejected": "not kept"},
    {"disposition": "INVERT", "chosen": "wrong", "rejected": "right"},
    {"disposition": "PUNISH", "chosen": "bad", "rejected": "bad too", "correction": "mended"},
)


def test_the_preference_of_each_disposition():
    pool = POOL.iloc[:0]
    stated = state_preferences(GOLD.iloc[:3], pool, np.random.default_rng(0))
    assert stated["preferred"].tolist() == ["chosen 0", "rejected 1", "better 2"]
    assert stated["dispreferred"].tolist() == ["rejected 0", "chosen 1", "chosen 2"]


def test_only_a_pair_without_correction_takes_a_compliant_response_of_the_pool():
    drawn = set()
    for seed in range(20):
        stated = state_preferences(GOLD, POOL, np.random.default_rng(seed))
        assert stated["preferred"].tolist()[:3] == ["chosen 0", "rejected 1", "better 2"]
        assert stated["dispreferred"].tolist()[3:] == ["chosen 3", "chosen 4"]
        drawn |= set(stated["preferred"][3:])
    assert drawn == {"kept", "right"}


def test_the_draw_is_decided_by_the_seed():
    def stated(seed):
        return state_preferences(GOLD, POOL, np.random.default_rng(seed))["preferred"].tolist()

    assert stated(3) == stated(3)
    assert len({tuple(stated(seed)) for seed in range(20)}) == 4


def test_no_response_that_complies_is_refused():
    with pytest.raises(DataError, match=r"2 PUNISH pairs .* no correction.*`gold\.punished: correction`"):
        state_preferences(GOLD, POOL.iloc[2:], np.random.default_rng(0))
