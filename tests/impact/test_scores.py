import copy

import naive
import pytest
import torch
from impact_cases import EXAMPLES, GOLD, MODELS, OBJECTIVE, PREFER, gold, rows_and_losses
from tiny_decoders import WIDTH, move, tiny_model, with_lora
from torch import nn
from transformers import OPTConfig, OPTForCausalLM
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from realignment.impact.ghost import LayerPasses
from realignment.impact.layers import directional_derivative
from realignment.impact.scores import ImpactError, gradient_norm, impact_scores
from realignment.impact.weights import check_scores, impact_weights
from realignment.likelihood.backbone import autocast
from realignment.likelihood.packing import pack_pairs
from realignment.likelihood.tokenization import TokenizedPair
from realignment.objective.hybrid import Example, Objective, Treatment, pair_losses
from realignment.records import HealthError

EXACT = [name for name in MODELS if "Gemma" not in name]
"""Gemma's norms compute in float32 whatever the model's dtype."""


def assert_equal_but_for_rounding(actual, expected, name):
    tolerance = {} if name in EXACT else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(actual, expected, **tolerance)


def score(model, examples, direction, objective=OBJECTIVE, **options):
    return impact_scores(model, *rows_and_losses(model, examples, objective), direction, **options)


@pytest.mark.parametrize("name", MODELS)
def test_the_gold_gradient_is_that_of_the_mean_loss_over_plain_forwards(name):
    model = MODELS[name]()
    twin = naive.gold_gradient(model, GOLD, Objective(beta=0.3))
    assert_equal_but_for_rounding(gold(model), twin, name)
    total = torch.sqrt(sum((g**2).sum() for g in twin.values()))
    assert gradient_norm(gold(model)) == pytest.approx(float(total), rel=1e-5)


def test_a_gold_gradient_of_zero_is_refused_because_no_pair_would_have_a_weight():
    """Parameters inside reentrant checkpoints are out of sight of `torch.autograd.grad`."""
    model = with_lora(tiny_model())
    model.activation_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ImpactError, match=r"gold gradient is zero in all of 12 trained tensors"):
        gold(model)


@pytest.mark.parametrize("name", MODELS)
def test_impact_scores_match_one_backward_per_pair(name):
    model = MODELS[name]()
    direction = gold(model)
    scores, logprobs = score(model, EXAMPLES, direction)
    twin = naive.impact_scores(model, EXAMPLES, OBJECTIVE, direction)
    assert_equal_but_for_rounding(scores, twin, name)
    plain = [value for e in EXAMPLES for value in naive.log_probabilities(model, e.tokens)]
    assert_equal_but_for_rounding(logprobs, torch.stack(plain).detach(), name)


AS_MANY_AS_HEADS = {
    "queries, shared": (Treatment.SUPPRESS, [5, 6], ([7], [8]), True),
    "queries, separate": (Treatment.SUPPRESS, [5, 6], ([7, 4], [8, 3]), False),
    "keys": (Treatment.KEEP, [5], ([7],), True),
}
"""Rows of four and of two tokens, as are the heads: which axis counts tokens cannot be seen from a shape."""


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("heads", AS_MANY_AS_HEADS)
@pytest.mark.parametrize("family", ["qwen3", "gemma3"])
def test_a_row_of_as_many_tokens_as_heads_has_the_score_of_one_backward(family, heads, checkpointing):
    model, (treatment, prompt, responses, share) = tiny_model(family), AS_MANY_AS_HEADS[heads]
    example = Example("p", TokenizedPair(prompt, responses), treatment)
    direction = gold(model)
    rows, kinds = pack_pairs([example.tokens], pad_id=0, share_prompts=share), torch.tensor([int(treatment)])
    assert rows.input_ids.shape[1] == (2 if heads == "keys" else 4)
    twin = naive.impact_scores(model, [example], OBJECTIVE, direction)
    if checkpointing:
        model.train().gradient_checkpointing_enable()

    def losses(logprobs, rows):
        return pair_losses(logprobs, logprobs.detach(), rows, kinds, OBJECTIVE)

    before = state(model)
    scores, _ = impact_scores(model, rows, losses, direction)
    torch.testing.assert_close(scores, twin, rtol=1e-4, atol=1e-5)
    assert state(model) == before


@pytest.mark.parametrize("name", MODELS)
def test_forward_mode_has_the_scores_and_log_probabilities_of_the_ghost_contraction(name):
    model = MODELS[name]()
    direction = gold(model)
    exact, forward = (score(model, EXAMPLES, direction, engine=engine) for engine in ("ghost", "jvp"))
    assert_equal_but_for_rounding(forward, exact, name)


def test_forward_mode_counts_the_padding_row_no_more_than_training_does():
    model = tiny_model("llama_tied")
    torch.manual_seed(5)
    direction = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    tokens = copy.deepcopy(EXAMPLES[0].tokens)
    tokens.prompt[0] = model.model.embed_tokens.padding_idx
    example = [Example("p", tokens, PREFER)]
    forward, _ = score(model, example, direction, engine="jvp")
    torch.testing.assert_close(forward, naive.impact_scores(model, example, OBJECTIVE, direction))


@pytest.mark.parametrize("name", EXACT)
def test_finite_differences_come_close_and_put_every_bit_back(name):
    model = MODELS[name]()
    direction = gold(model)
    before = copy.deepcopy(model.state_dict())
    exact, plain = score(model, EXAMPLES, direction)
    scores, logprobs = score(model, EXAMPLES, direction, engine="finite_difference", step=1e-4)
    assert float((scores - exact).norm() / exact.norm()) < 1e-3
    torch.testing.assert_close(logprobs, plain, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_error_of_finite_differences_falls_with_the_square_of_the_step():
    model = with_lora(tiny_model(), moved=True)
    direction = gold(model)
    exact, _ = score(model, EXAMPLES, direction)
    errors = [
        float((score(model, EXAMPLES, direction, engine="finite_difference", step=step)[0] - exact).norm())
        for step in (0.02, 0.01)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("mixed", [False, True])
def test_finite_differences_in_half_precision_are_refused_with_the_reason(mixed):
    bare = tiny_model(dtype=torch.float32 if mixed else torch.bfloat16)
    if mixed:
        autocast(bare)
    model = with_lora(bare, moved=True)
    direction = gold(model)
    with pytest.raises(ImpactError, match=r"rounding noise.*expected float32.*engine: ghost"):
        score(model, EXAMPLES, direction, engine="finite_difference")


@pytest.mark.parametrize("lora", [True, False])
def test_under_autocast_scores_are_those_of_float32_but_for_its_rounding(lora):
    models = [tiny_model(dtype=torch.float32) for _ in range(2)]
    autocast(models[1])
    exact, mixed = (with_lora(model, moved=True) if lora else model for model in models)
    direction = gold(exact)
    expected, actual = (score(model, EXAMPLES, direction)[0] for model in (exact, mixed))
    assert 1e-5 < float((actual - expected).norm() / expected.norm()) < 0.1


def test_finite_differences_along_no_direction_are_zero():
    model = with_lora(tiny_model(), moved=True)
    nowhere = {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.requires_grad}
    scores, logprobs = score(model, EXAMPLES, nowhere, engine="finite_difference")
    assert not scores.any()
    torch.testing.assert_close(logprobs, score(model, EXAMPLES, nowhere)[1])


@pytest.mark.parametrize("engine", ["ghost", "jvp"])
def test_scores_do_not_depend_on_whether_prompts_are_shared(engine):
    model = with_lora(tiny_model(), moved=True)
    direction = gold(model)
    kinds = torch.tensor([int(e.treatment) for e in EXAMPLES])

    def losses(logprobs, rows):
        return pair_losses(logprobs, logprobs.detach(), rows, kinds, OBJECTIVE)

    results = [
        impact_scores(
            model,
            pack_pairs([e.tokens for e in EXAMPLES], pad_id=0, share_prompts=share),
            losses,
            direction,
            engine=engine,
        )
        for share in (True, False)
    ]
    torch.testing.assert_close(*results)


def test_impact_scores_of_llamas_own_norm_match_in_float32():
    model = tiny_model("llama_tied", dtype=torch.float32)
    direction = gold(model)
    scores, _ = score(model, EXAMPLES, direction)
    twin = naive.impact_scores(model, EXAMPLES, OBJECTIVE, direction)
    assert float((scores - twin).norm() / twin.norm()) < 1e-4


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float32, 1e-4), (torch.bfloat16, 0.15)]
)
@pytest.mark.parametrize("layers", ["norm", "embed_tokens", ""])
def test_impact_scores_of_gemmas_norms_and_scaled_embedding_match(layers, dtype, tolerance):
    """Its norms multiply by 1 + w, and a gold gradient is small beside a one; its embedding is a multiple."""
    model = tiny_model("gemma2", dtype=dtype)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(layers in name)
    direction = {name: 1e-3 * gradient for name, gradient in gold(model).items()}
    scores, twin = (
        score(model, EXAMPLES, direction)[0],
        naive.impact_scores(model, EXAMPLES, OBJECTIVE, direction),
    )
    assert float((scores - twin).norm() / twin.norm()) < tolerance


def test_the_padding_row_of_the_embedding_counts_no_more_than_in_training():
    model = tiny_model("llama")
    name, pad = "model.embed_tokens.weight", model.model.embed_tokens.padding_idx
    direction = {key: torch.zeros_like(p) for key, p in model.named_parameters()}
    direction[name][pad] = 1.0
    tokens = copy.deepcopy(EXAMPLES[0].tokens)
    tokens.prompt[0] = pad
    assert not score(model, [Example("p", tokens, PREFER)], direction)[0].any()


def test_neither_batch_nor_order_of_the_scored_pairs_matters():
    model = with_lora(tiny_model(), moved=True)
    direction = gold(model)
    together, _ = score(model, EXAMPLES, direction)
    alone = torch.cat([score(model, [example], direction)[0] for example in EXAMPLES])
    backwards = score(model, EXAMPLES[::-1], direction)[0].flip(0)
    torch.testing.assert_close(alone, together)
    torch.testing.assert_close(backwards, together)


def test_how_the_gold_batch_is_divided_does_not_matter():
    model = with_lora(tiny_model(), moved=True)
    torch.testing.assert_close(gold(model, [GOLD[:3], GOLD[3:]]), gold(model))


def test_gradient_checkpointing_changes_no_score():
    model = with_lora(tiny_model(), moved=True).train()
    direction = gold(model)
    plain, _ = score(model, EXAMPLES, direction)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    torch.testing.assert_close(gold(model), direction)
    torch.testing.assert_close(score(model, EXAMPLES, direction)[0], plain)


def test_dropout_is_off_while_scoring_a_model_in_train_mode():
    model = with_lora(tiny_model(), moved=True, dropout=0.5)
    direction = gold(model.eval())
    evaluated, _ = score(model, EXAMPLES, direction)
    model.train()
    torch.testing.assert_close(gold(model), direction)
    torch.testing.assert_close(score(model, EXAMPLES, direction)[0], evaluated)
    assert model.training


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def trained(model):
    return [name for name, p in model.named_parameters() if p.requires_grad]


def state(model):
    return hooks(model), trained(model), [p.grad is None for p in model.parameters()]


def test_scoring_leaves_hooks_gradients_and_what_is_trained_as_they_were():
    model = with_lora(tiny_model(), moved=True)
    direction, before = gold(model), state(model)
    score(model, EXAMPLES, direction)
    assert state(model) == before


def test_a_failed_scoring_leaves_hooks_and_what_is_trained_as_they_were():
    model = with_lora(tiny_model(), moved=True)
    direction, before = gold(model), state(model)
    rows, _ = rows_and_losses(model, EXAMPLES)
    with pytest.raises(ZeroDivisionError):
        impact_scores(model, rows, lambda logprobs, r: logprobs / (1 // 0), direction)
    assert state(model) == before


class Gate(nn.Module):
    """A trained layer that is not affine in its weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH, dtype=torch.float64))

    def forward(self, x):
        return x * torch.sigmoid(self.weight)


def test_a_trained_layer_of_unknown_form_is_refused_before_anything_is_touched():
    model = tiny_model("llama")
    model.model.norm = nn.Sequential(model.model.norm, Gate())
    before = state(model)
    with pytest.raises(ImpactError, match=r"model\.norm\.1 \(Gate\): expected linear, embedding or norm"):
        score(model, EXAMPLES, {})
    assert state(model) == before


def test_an_embedding_of_positions_that_shifts_them_is_refused():
    sizes = {"hidden_size": WIDTH, "ffn_dim": 24, "word_embed_proj_dim": WIDTH, "num_attention_heads": 2}
    model = OPTForCausalLM(OPTConfig(vocab_size=37, num_hidden_layers=1, **sizes)).double()
    with pytest.raises(ImpactError, match="embed_positions"):
        score(model, EXAMPLES, {name: torch.ones_like(p) for name, p in model.named_parameters()})


def test_a_layer_of_two_inputs_is_refused():
    class GatedRMSNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(WIDTH, dtype=torch.float64))

        def forward(self, states, gate=None):
            return states * gate * self.weight

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = GatedRMSNorm()

        def forward(self, states):
            return self.norm(states, gate=states)

    states = torch.randn(1, 3, WIDTH, dtype=torch.float64)
    model = Gated()
    with (
        pytest.raises(ImpactError, match=r"norm \(GatedRMSNorm\).*2 arguments"),
        LayerPasses(model, (1, 3), lambda *_: None),
    ):
        model(states)


def test_a_layer_that_sees_all_rows_in_one_is_refused():
    layer = nn.Linear(3, 3)
    model, x = nn.Sequential(nn.Flatten(0, 1), layer), torch.randn(2, 4, 3)
    with (
        LayerPasses(model, (2, 4), lambda *_: None),
        pytest.raises(ImpactError, match=r"shape \(8, 3\).*\(2, 4\) tokens"),
    ):
        model(x).sum().backward()


def test_a_model_that_trains_nothing_is_refused():
    with pytest.raises(ImpactError, match="no trainable parameter"):
        score(tiny_model().requires_grad_(False), EXAMPLES, {})


LAYERS = {
    "linear": (lambda: nn.Linear(WIDTH, 5), 1e-12),
    "linear without bias": (lambda: nn.Linear(WIDTH, 5, bias=False), 1e-12),
    "GPT-2's Conv1D": (lambda: Conv1D(5, WIDTH), 1e-12),
    "layer norm": (lambda: nn.LayerNorm(WIDTH), 1e-12),
    "torch's RMS norm": (lambda: nn.RMSNorm(WIDTH), 1e-12),
    "Llama's RMS norm, which computes in float32": (lambda: LlamaRMSNorm(WIDTH), 1e-6),
    "Gemma's RMS norm, which adds one": (lambda: GemmaRMSNorm(WIDTH), 1e-6),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_derivative_along_a_direction_is_that_of_reverse_mode(name):
    make, tolerance = LAYERS[name]
    torch.manual_seed(0)
    layer = move(make().double(), scale=1.0)
    x = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    direction = {key: torch.randn_like(p) for key, p in layer.named_parameters()}
    y = layer(x)
    delta = torch.randn_like(y)
    gradients = torch.autograd.grad(y, list(layer.parameters()), delta)
    reverse = sum((g * direction[key]).sum() for g, key in zip(gradients, direction, strict=True))
    forward = (directional_derivative(layer, x, direction) * delta).sum()
    assert float(forward) == pytest.approx(float(reverse), rel=tolerance)


@pytest.mark.parametrize("name", ["moved LoRA", "all of Llama, tied head and padding row", "all of GPT-2"])
def test_a_small_step_on_a_pair_changes_the_gold_loss_by_minus_rate_times_its_score(name):
    model, rate = MODELS[name](), 1e-6
    direction = gold(model)
    scores, _ = score(model, EXAMPLES, direction)
    references = [[x.detach() for x in naive.log_probabilities(model, e.tokens)] for e in GOLD]

    def gold_loss(policy):
        pairs = zip(GOLD, references, strict=True)
        with torch.no_grad():
            return sum(naive.example_loss(policy, e, Objective(beta=0.3), r) for e, r in pairs) / len(GOLD)

    for example, value in zip(EXAMPLES, scores, strict=True):
        moved = copy.deepcopy(model)
        step = naive.gradient(moved, naive.example_loss(moved, example, OBJECTIVE))
        with torch.no_grad():
            for key, parameter in moved.named_parameters():
                if key in step:
                    parameter -= rate * step[key]
        assert float(gold_loss(moved) - gold_loss(model)) == pytest.approx(float(-rate * value), rel=1e-2)


def test_a_pair_that_is_the_gold_batch_has_its_squared_norm_as_score_and_the_inverse_pair_its_negative():
    model = with_lora(tiny_model())
    dpo, example = Objective(beta=0.3), GOLD[0]
    direction = gold(model, [[example]])
    turned = TokenizedPair(example.tokens.prompt, example.tokens.responses[::-1])
    pair = [example, Example("turned", turned, PREFER)]
    scores, _ = score(model, pair, direction, dpo)
    expected = gradient_norm(direction) ** 2
    torch.testing.assert_close(scores, torch.tensor([expected, -expected], dtype=torch.float64))


def test_a_pair_like_a_gold_pair_has_positive_impact():
    model = with_lora(tiny_model())
    scores, _ = score(model, GOLD, gold(model), Objective(beta=0.3))
    assert scores.sum() > 0


CORRECT, SUPPRESS = Treatment.CORRECT, Treatment.SUPPRESS
GROUPS = [PREFER, SUPPRESS, PREFER, PREFER, SUPPRESS, PREFER]
SCORES = torch.tensor([3.0, 200.0, -1.0, 5.0, -40.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("normalize", ["mean_one", "l1"])
def test_weights_match_the_formula(normalize):
    weights = impact_weights(SCORES, GROUPS, normalize=normalize)
    expected = naive.impact_weights(SCORES.tolist(), GROUPS, normalize)
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64))


def test_mean_one_weights_have_mean_one_in_each_treatment_whatever_its_scale():
    weights = impact_weights(SCORES, GROUPS, normalize="mean_one")
    assert weights.tolist() == pytest.approx([4 / 3, 2.0, 0.0, 20 / 9, 0.0, 4 / 9])
    larger = torch.where(torch.tensor([g == SUPPRESS for g in GROUPS]), SCORES * 280, SCORES)
    torch.testing.assert_close(impact_weights(larger, GROUPS, normalize="mean_one"), weights)


def test_corrected_and_suppressed_pairs_of_one_disposition_are_normalised_apart():
    """Of one size in scores they are not: |score| 0.25 against 0.02 in the audit of the sample."""
    scores = torch.tensor([0.25, 0.75, 0.01, 0.03])
    weights = impact_weights(scores, [CORRECT, CORRECT, SUPPRESS, SUPPRESS], normalize="mean_one")
    assert weights.tolist() == pytest.approx([0.5, 1.5, 0.5, 1.5])


def test_clamped_weights_are_one_where_the_score_is_positive():
    assert impact_weights(SCORES, GROUPS, normalize="clamped").tolist() == [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]


def test_l1_weights_add_up_to_one_over_both_dispositions():
    assert float(impact_weights(SCORES, GROUPS, normalize="l1").sum()) == pytest.approx(1)


def test_uniform_weights_are_one_whatever_the_scores():
    assert impact_weights(SCORES, GROUPS, normalize="uniform").tolist() == [1.0] * 6


def test_winsorizing_caps_the_largest_weights_of_a_disposition_and_keeps_the_mean():
    scores = torch.tensor([1.0] * 9 + [1000.0])
    weights = impact_weights(scores, [PREFER] * 10, normalize="mean_one", winsorize=0.8)
    assert weights.tolist() == pytest.approx([1.0] * 10)
    assert impact_weights(scores, [PREFER] * 10, normalize="mean_one")[-1] > 9


def test_winsorizing_does_not_take_the_last_weights_where_nearly_all_are_zero():
    scores = torch.tensor([-1.0] * 8 + [1.0, 3.0])
    weights = impact_weights(scores, [PREFER] * 10, normalize="mean_one", winsorize=0.5)
    assert weights.tolist() == pytest.approx([0.0] * 8 + [2.5, 7.5])


@pytest.mark.parametrize("normalize", ["mean_one", "l1"])
def test_a_disposition_without_positive_score_gets_weight_zero_and_leaves_the_other_alone(normalize):
    scores = torch.tensor([1.0, -2.0, 3.0, 4.0, 0.0, 2.0])
    weights = impact_weights(scores, GROUPS, normalize=normalize)
    assert weights[[1, 4]].tolist() == [0.0, 0.0]
    total = 4.0 if normalize == "mean_one" else 1.0
    assert float(weights.sum()) == pytest.approx(total)
    none = impact_weights(-scores.abs(), GROUPS, normalize=normalize)
    assert none.tolist() == [0.0] * 6


def test_weighing_does_not_change_the_scores_it_is_given():
    scores = SCORES.clone()
    impact_weights(scores, GROUPS, normalize="mean_one", winsorize=0.5)
    assert scores.equal(SCORES)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, float("nan"), float("inf")], "2 of 3 impact scores are not finite.*float32"),
        (
            [-1.0, -2.0, 3.0],
            "67% of 3 impact scores of `prefer` .* negative and 1 .*limit: 50%.*gold.size",
        ),
        ([0.0, 0.0], "0% of 2 impact scores of `prefer` pairs are negative and 0 positive"),
    ],
)
def test_scores_that_cannot_be_trusted_stop_the_run_and_say_what_to_change(scores, message):
    with pytest.raises(HealthError, match=message):
        check_scores(torch.tensor(scores), [PREFER] * len(scores), max_negative_share=0.5)


def test_good_scores_of_one_treatment_do_not_hide_that_all_of_another_are_negative():
    scores, treatments = torch.tensor([-1.0] * 40 + [1.0] * 60), [PREFER] * 40 + [SUPPRESS] * 60
    with pytest.raises(HealthError, match="100% of 40 impact scores of `prefer` pairs are negative"):
        check_scores(scores, treatments, max_negative_share=0.5)
    check_scores(scores, treatments, max_negative_share=1.0)


def test_scores_within_the_limit_pass():
    check_scores(torch.tensor([-1.0, 1.0, 0.0, 2.0]), [PREFER] * 4, max_negative_share=0.25)
