"""Slow twins of the method's core: plain forwards, one backward per pair, formulas as printed."""

import math

import torch

from realignment.objective.hybrid import Treatment


def log_sigmoid(x):
    return torch.log(1 / (1 + torch.exp(-x)))


def log_probability(model, prompt, response):
    """log π(y|x): the model's own logits on prompt and response alone, summed over the response's tokens."""
    logits = model(torch.tensor([[*prompt, *response]]), use_cache=False).logits[0]
    logprobs = torch.log_softmax(logits, dim=-1)
    return sum(logprobs[len(prompt) - 1 + i, token] for i, token in enumerate(response))


def log_probabilities(model, pair):
    return [log_probability(model, pair.prompt, response) for response in pair.responses]


def token_kl(model, reference, pair):
    """Mean over the tokens of the first response of KL(reference ‖ model) over the vocabulary."""
    response, ids = pair.responses[0], torch.tensor([[*pair.prompt, *pair.responses[0]]])
    policy, base = (torch.log_softmax(m(ids, use_cache=False).logits[0], -1) for m in (model, reference))
    places = range(len(pair.prompt) - 1, len(pair.prompt) + len(response) - 1)
    return sum((base[t].exp() * (base[t] - policy[t])).sum() for t in places) / len(response)


def dense_likelihoods(
    hidden, weight, target, reference_hidden=None, reference_weight=None, softcap=None, scale=1.0
):
    """log π, log π_ref and KL of each token with all N × V logits at once."""

    def probabilities(states, matrix):
        logits = scale * (states @ matrix.T)
        return torch.softmax(logits if softcap is None else softcap * torch.tanh(logits / softcap), -1)

    places, q = torch.arange(len(target)), probabilities(hidden, weight)
    if reference_hidden is None:
        zero = torch.zeros(len(target), dtype=q.dtype)
        return torch.log(q)[places, target], zero, zero
    p = probabilities(reference_hidden, reference_weight)
    kl = (p * (torch.log(p) - torch.log(q))).sum(-1)
    return torch.log(q)[places, target], torch.log(p)[places, target], kl


def pair_loss(logprobs, reference, lengths, treatment, objective):
    """ℓ_i of one pair, from method.md, section 4."""
    lr = [a - b for a, b in zip(logprobs, reference, strict=True)]
    beta, extra = objective.beta, 0.0
    if treatment != Treatment.SUPPRESS:
        extra = -objective.anchor_weight * logprobs[0] / lengths[0]
    if treatment in (Treatment.PREFER, Treatment.AFFIRM):
        return objective.preference_weight * preference(lr, lengths, objective) + extra
    if treatment == Treatment.CORRECT:
        value = -log_sigmoid(beta * (lr[0] - lr[1])) - log_sigmoid(beta * (lr[0] - lr[2]))
        return objective.preference_weight * value + extra
    if treatment == Treatment.SUPPRESS:
        return objective.preference_weight * suppression(logprobs, lr, lengths, objective)
    return logprobs[0] * 0 + extra


def suppression(logprobs, lr, lengths, objective):
    beta = objective.beta
    if objective.suppress == "apo_down":
        return torch.sigmoid(beta * lr[1]) + 1 - torch.sigmoid(beta * (lr[1] - lr[0]))
    if objective.suppress == "ascent":
        return sum(value / length for value, length in zip(logprobs, lengths, strict=True))
    scale = 2 / beta if objective.suppress == "npo" else 1.0
    return -scale * sum(log_sigmoid(-beta * value) for value in lr)


def preference(lr, lengths, objective):
    beta, epsilon = objective.beta, objective.error_rate
    if objective.invert == "dpo":
        return -log_sigmoid(beta * (lr[0] - lr[1]))
    if objective.invert == "ipo":
        return (lr[0] / lengths[0] - lr[1] / lengths[1] - 1 / (2 * beta)) ** 2
    right, wrong = -log_sigmoid(beta * (lr[0] - lr[1])), -log_sigmoid(beta * (lr[1] - lr[0]))
    return ((1 - epsilon) * right - epsilon * wrong) / (1 - 2 * epsilon)


def example_loss(model, example, objective, reference=None):
    """ℓ_i of one example by plain forwards; without a reference, at θ_ref."""
    logprobs = log_probabilities(model, example.tokens)
    base = [x.detach() for x in logprobs] if reference is None else reference
    lengths = [len(response) for response in example.tokens.responses]
    return pair_loss(logprobs, base, lengths, example.treatment, objective)


TERMS = {
    Treatment.PREFER: "invert_loss",
    Treatment.CORRECT: "punish_loss",
    Treatment.SUPPRESS: "punish_loss",
    Treatment.KEEP: "retain_loss",
    Treatment.AFFIRM: "retain_loss",
    Treatment.IMITATE: "invert_loss",
}


def batch_loss(model, reference_model, examples, objective):
    """The hybrid loss of a batch, term by term, and its terms."""
    terms = {"invert_loss": [], "punish_loss": [], "retain_loss": [], "retain_kl": []}
    for example in examples:
        with torch.no_grad():
            reference = log_probabilities(reference_model, example.tokens)
        name = TERMS[example.treatment]
        terms[name].append(example.weight * example_loss(model, example, objective, reference))
        if name == "retain_loss":
            terms["retain_kl"].append(token_kl(model, reference_model, example.tokens))
    means = {name: sum(values) / len(values) if values else 0.0 for name, values in terms.items()}
    total = (
        means["invert_loss"]
        + objective.punish_weight * means["punish_loss"]
        + objective.retain_weight * means["retain_loss"]
        + objective.kl_weight * means["retain_kl"]
    )
    return total, means


def gradient(model, loss):
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    values = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if value is None else value
        for (name, p), value in zip(parameters.items(), values, strict=True)
    }


def gold_gradient(model, gold, objective):
    return gradient(model, sum(example_loss(model, example, objective) for example in gold) / len(gold))


def impact_scores(model, examples, objective, direction):
    """One backward per pair."""
    gradients = [gradient(model, example_loss(model, example, objective)) for example in examples]
    return torch.stack([sum((g[name] * direction[name]).sum() for name in direction) for g in gradients])


def impact_weights(scores, groups, normalize):
    clamped = [max(score, 0.0) for score in scores]
    if normalize == "l1":
        total = math.fsum(clamped)
        return [w / total for w in clamped]
    totals = {g: math.fsum(w for w, other in zip(clamped, groups, strict=True) if other == g) for g in groups}
    return [
        w * groups.count(g) / totals[g] if totals[g] else 0.0 for w, g in zip(clamped, groups, strict=True)
    ]
