"""Models and examples on which impact scores are held against their slow twin."""

import torch
from tiny_decoders import tiny_examples, tiny_model, with_lora

from realignment.impact.scores import gold_gradient
from realignment.likelihood.packing import pack_pairs
from realignment.objective.hybrid import Objective, Treatment, pair_losses

PREFER, CORRECT, SUPPRESS = Treatment.PREFER, Treatment.CORRECT, Treatment.SUPPRESS
OBJECTIVE = Objective(beta=0.3, anchor_weight=0.2)
EXAMPLES = tiny_examples([PREFER, SUPPRESS, CORRECT, PREFER, SUPPRESS], seed=3)
GOLD = tiny_examples([PREFER] * 4, seed=8)
MODELS = {
    "fresh LoRA": lambda: with_lora(tiny_model()),
    "moved LoRA": lambda: with_lora(tiny_model(), moved=True),
    "LoRA on GPT-2": lambda: with_lora(tiny_model("gpt2"), moved=True, targets=["c_attn", "c_fc"]).eval(),
    "all of Llama, tied head and padding row": lambda: tiny_model("llama_tied"),
    "all of Llama": lambda: tiny_model("llama"),
    "all of Qwen2, with biases": lambda: tiny_model("qwen2"),
    "all of GPT-2": lambda: tiny_model("gpt2"),
    "all of Qwen3, heads behind tokens": lambda: tiny_model("qwen3"),
    "all of Gemma 2": lambda: tiny_model("gemma2"),
    "all of Gemma 3, heads before tokens": lambda: tiny_model("gemma3"),
    "all of Mistral, windowed": lambda: tiny_model("mistral_window"),
    "all of Phi-3": lambda: tiny_model("phi3"),
}


def rows_and_losses(model, examples, objective=OBJECTIVE):
    rows = pack_pairs([e.tokens for e in examples], pad_id=0)
    kinds = torch.tensor([int(e.treatment) for e in examples])
    return rows, lambda logprobs, r: pair_losses(logprobs, logprobs.detach(), r, kinds, objective)


def gold(model, batches=(GOLD,)):
    laid_out = [rows_and_losses(model, batch, Objective(beta=0.3)) for batch in batches]

    def losses(logprobs, rows):
        kinds = torch.full((len(rows.first),), int(PREFER))
        return pair_losses(logprobs, logprobs.detach(), rows, kinds, Objective(beta=0.3))

    return gold_gradient(model, [rows for rows, _ in laid_out], losses)
