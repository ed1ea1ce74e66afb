"""Every benchmark runs, and its sides compute the same; how fast they are is not asked here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPTS = ("answers", "impact", "step", "kl", "memory", "judge", "growth", "gpu")


@pytest.fixture
def benchmark_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_gives_a_ratio_for_every_row_and_its_sides_agree(name, tmp_path):
    target = tmp_path / "rows.json"
    command = [sys.executable, FOLDER / f"{name}.py", "--quick", "--json", target]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    rows = json.loads(target.read_text(encoding="utf-8"))
    assert rows
    for row, content in rows.items():
        assert content["exact"] is True, row
        assert content["ratio"] > 0, row
        assert (content["met"] is None) == (content["goal"] is None), row


def test_a_row_whose_results_differ_is_not_exact_and_misses_its_goal(benchmark_modules):
    import torch
    from harness import Claim, evaluate_claims

    claim = Claim("row", "peer", "ours", goal=2.0, tolerances={"loss": 1e-5})
    costs = {"peer": [4.0, 9.0, 6.0], "ours": [1.0, 1.0, 2.0]}
    results = {"peer": {"loss": [torch.tensor(1.0)]}, "ours": {"loss": [torch.tensor(1.0)]}}
    row = evaluate_claims([claim], costs, results)["row"]
    assert (row.ratio, row.exact, row.met) == (4.0, True, True)
    results["ours"] = {"loss": [torch.tensor(1.0 + 1e-4)]}
    row = evaluate_claims([claim], costs, results)["row"]
    assert (row.ratio, row.exact, row.met) == (4.0, False, False)


@pytest.mark.parametrize(
    ("found", "expected"), [([float("nan")], [1.0]), ([1.0, 2.0], [1.0]), ([0.0], [0.0])]
)
def test_nan_other_shapes_and_nothing_but_zeros_are_infinitely_wrong(benchmark_modules, found, expected):
    import torch
    from harness import relative_error

    assert relative_error([torch.tensor(found)], [torch.tensor(expected)]) == float("inf")


def test_calls_alternate_and_every_other_round_is_reversed(benchmark_modules):
    from harness import alternate

    order = []
    calls = {name: lambda name=name: order.append(name) or {} for name in ("a", "b")}
    seconds, _ = alternate(calls, rounds=2)
    assert order == ["a", "b", "a", "b", "b", "a"]
    assert [len(values) for values in seconds.values()] == [2, 2]


def test_the_model_flops_of_a_step_are_those_of_its_matrices(benchmark_modules):
    import cases
    import gpu

    pairs = cases.random_pairs(3, 512, cases.LENGTHS["PKU-like"], seed=0)
    model = cases.random_model("tiny", attention="sdpa")
    linear = sum(p.numel() for name, p in model.named_parameters() if "proj" in name)
    responses = sum(len(r) for pair in pairs for r in pair.responses)
    expected = 4 * (linear * sum(map(len, pairs)) + model.lm_head.weight.numel() * responses)
    assert gpu.model_flops(pairs, "tiny") == expected


@pytest.mark.parametrize("slope", [1, 2])
def test_the_slope_of_a_power_law_is_its_exponent(benchmark_modules, slope):
    import growth

    assert growth.slope((2, 4, 8), [3.0 * x**slope for x in (2, 4, 8)]) == pytest.approx(slope)


def test_scores_in_the_order_of_the_gains_have_rank_correlation_one_and_others_less(benchmark_modules):
    import marginal_gain
    import numpy as np

    rng = np.random.default_rng(0)
    gains = rng.normal(size=40)
    same = marginal_gain.correlation(np.exp(gains), gains, gains)
    assert same["n"] == 40
    found = [same["rho"], *same["interval"], *same["difference"]]
    assert found == pytest.approx([1, 1, 1, 0, 0])
    noisy = marginal_gain.correlation(gains + rng.normal(size=40), gains, gains)
    low, high = noisy["interval"]
    assert 0 < low < noisy["rho"] < high < 1
    assert noisy["difference"][1] < 0, "a noisy score ranks worse than a perfect one"


def test_a_table_replaces_its_own_section_alone(benchmark_modules):
    import table

    text = "<!-- begin kl -->old<!-- end kl --><!-- begin step -->other<!-- end step -->"
    new = table.put(text, "kl", "new")
    assert "old" not in new
    assert "new\n<!-- end kl --><!-- begin step -->other<!-- end step -->" in new
    with pytest.raises(ValueError, match="0 sections 'judge'"):
        table.put(text, "judge", "new")


def test_the_readme_has_the_arithmetic_that_its_command_prints(benchmark_modules):
    import arithmetic

    assert arithmetic.table() in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_arithmetic_counts_the_tokens_that_both_sides_compute(benchmark_modules):
    """TRL pads both responses of each pair, with its prompt, to the longest of the batch."""
    import arithmetic
    import cases

    pairs = cases.random_pairs(arithmetic.BATCH, 8192, cases.LENGTHS["PKU-like"], seed=1)
    sequences = [len(pair.prompt) + len(response) for pair in pairs for response in pair.responses]
    tokens = arithmetic.count("PKU-like", arithmetic.BATCH)
    assert tokens.padded == len(sequences) * max(sequences)
    assert tokens.ours == sum(sequences) - sum(len(pair.prompt) for pair in pairs)
    width, *_, vocabulary = cases.SHAPES["t17"]
    model = cases.random_model("t17", attention="sdpa")
    weights = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n)
    assert arithmetic.products(1, 1, 1, 1) == weights + width * vocabulary
