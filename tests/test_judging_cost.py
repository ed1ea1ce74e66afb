"""The estimate of what judging costs: its arithmetic, and that the page shows what the command prints."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = ()  # no argument: every assumption as the page has it


@pytest.fixture
def cost(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import judging_cost

    return judging_cost


def test_the_page_shows_what_the_command_prints(cost):
    text = cost.PAGE.read_text(encoding="utf-8")
    assert cost.put(text, cost.page(cost.parse(DEFAULTS))) == text, (
        "run `python benchmarks/judging_cost.py --write`"
    )


def test_a_page_without_its_markers_is_an_error(cost):
    with pytest.raises(ValueError, match="0 pairs of the markers"):
        cost.put("text", "tables")


def test_the_rates_give_back_both_measurements(cost):
    for model in cost.MODELS:
        per_read, per_written = model.seconds_per_token()
        for read, written, rate in (model.long, model.short):
            assert written / (read * per_read + written * per_written) == pytest.approx(rate)
        assert 0 < per_read < per_written * 2
        assert 1 < cost.optimism(model) < 2, "attention makes long requests dearer than the two rows say"


def test_tokens_are_those_counted_by_hand(cost):
    sizes = {"policy": 100, "prompt": 20, "response": 30, "question": 10, "reply": 5, "block": 1, "pairs": 7}
    arguments = [str(part) for name, size in sizes.items() for part in (f"--{name}", size)]
    found = cost.work(cost.parse([*arguments, "--conflicts", "0.5"]))
    computed = [amount.computed / 7 for amount in found.values()]
    assert computed == [2 * 160, 2 * 60, 20 + 2 * 40, 20 + 1.5 * 40]
    assert [amount.written / 7 for amount in found.values()] == [10, 10, 10, 7.5]
    assert [amount.read / 7 for amount in found.values()] == [320, 320, 320, 240]


def test_what_does_not_fill_a_block_is_computed_again(cost):
    def found(block):
        return cost.work(cost.parse(["--policy", "100", "--prompt", "20", "--block", block]))

    loose, tight = found("16"), found("1")
    spared = {kept: (loose[kept].computed - tight[kept].computed) / 1e6 for kept in tight}
    assert list(spared.values())[:3] == [0, 2 * 4, 4 + 8]  # 96 of 100 are kept, and 112 of 120


def test_more_kept_is_never_dearer_and_a_larger_model_is(cost):
    options = cost.parse(DEFAULTS)
    small, large = ([cost.gpu_hours(m, w) for w in cost.work(options).values()] for m in cost.MODELS)
    assert small == sorted(small, reverse=True)
    assert all(a < b for a, b in zip(small, large, strict=True))


def test_hours_and_flops_of_the_small_model_uncached(cost):
    amount = cost.work(cost.parse(["--reply", "0"]))["nothing"]
    model = cost.MODELS[0]
    assert amount.computed == 2 * 860e6
    assert cost.flops(model, amount.computed) == pytest.approx(2 * 7.0e9 * 1.72e9)
    assert cost.gpu_hours(model, amount) == pytest.approx(1.72e9 / 58_931 / 3600, rel=1e-4)
