"""Random decoders of a few thousand parameters, exact in float64, and pairs of random tokens."""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from realignment.likelihood.tokenization import TokenizedPair
from realignment.objective.hybrid import Example, Treatment

VOCABULARY, WIDTH = 37, 16
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
GEMMA = SIZES | {"head_dim": 4, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
GPT2_SIZES = {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 128}
GPT2_SIZES |= {"bos_token_id": 0, "eos_token_id": 1}
FAMILIES = {
    "llama_tied": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=False)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
    "mistral_window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=12)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2_SIZES, initializer_range=0.3)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=4)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(
            **GEMMA, query_pre_attn_scalar=4, attn_logit_softcapping=1.5, final_logit_softcapping=2.0
        )
    ),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**GEMMA, query_pre_attn_scalar=4)),
    "granite": lambda: GraniteForCausalLM(
        GraniteConfig(**SIZES, logits_scaling=1.7, residual_multiplier=0.8, attention_multiplier=0.4)
    ),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SIZES)),
    "mamba": lambda: MambaForCausalLM(
        MambaConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, state_size=4, num_hidden_layers=2, pad_token_id=2
        )
    ),
    "lfm2": lambda: Lfm2ForCausalLM(Lfm2Config(**SIZES, layer_types=["conv", "full_attention"])),
    "falcon": lambda: FalconForCausalLM(
        FalconConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            initializer_range=0.3,
        )
    ),
    "gpt_neo": lambda: GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_layers=2,
            num_heads=2,
            attention_types=[[["global", "local"], 1]],
            window_size=8,
            max_position_embeddings=128,
            initializer_range=0.3,
        )
    ),
}
OTHERS = ["mamba", "lfm2", "falcon", "gpt_neo"]
"""Recurrent, hybrid of convolution and attention, and two with an attention of their own: prompts cannot be
shared."""
DECODERS = [name for name in FAMILIES if name not in OTHERS]
"""Tokens meet in attention alone."""


def tiny_model(family="llama_tied", *, dtype=torch.float64, seed=0):
    """A random model. In float64 its norms are torch's (but Gemma's): Llama's compute in float32 always."""
    torch.manual_seed(seed)
    model = FAMILIES[family]().to(dtype).eval()
    if dtype == torch.float64 and not family.startswith("gemma"):
        for module in list(model.modules()):
            for name, child in module.named_children():
                if "RMSNorm" in type(child).__name__:
                    setattr(module, name, _exact_norm(child))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def _exact_norm(norm):
    exact = nn.RMSNorm(norm.weight.shape[0], eps=norm.variance_epsilon, dtype=torch.float64)
    with torch.no_grad():
        exact.weight.copy_(norm.weight)
    return exact


def with_lora(model, *, moved=False, dropout=0.0, targets=("q_proj", "v_proj", "down_proj"), seed=0):
    """The model with an adapter of rank 3; B = 0 unless it has `moved`."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=3,
        lora_alpha=6,
        lora_dropout=dropout,
        target_modules=list(targets),
        task_type="CAUSAL_LM",
        fan_in_fan_out=model.config.model_type == "gpt2",
    )
    adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    return move(adapted) if moved else adapted


def move(model, *, scale=0.1, seed=1):
    """Noise on every trained parameter: a policy that is no longer the reference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.add_(scale * noise)
    return model


def tiny_pairs(counts, *, seed=0, longest=7):
    """One pair of random tokens for each number of responses in `counts`, of varying lengths."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        length = int(torch.randint(low, high + 1, (), generator=generator))
        return torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()

    return [TokenizedPair(draw(2, 6), tuple([*draw(0, longest - 1), 1] for _ in range(n))) for n in counts]


RESPONSES = dict(zip(Treatment, (2, 3, 2, 1, 2, 1), strict=True))
COLUMNS = {2: ("chosen", "rejected"), 3: ("correction", "chosen", "rejected"), 1: ("chosen",)}


def tiny_examples(treatments, *, seed=0, weights=None):
    """Examples of random tokens, one for each treatment; references are not known yet."""
    pairs = tiny_pairs([RESPONSES[t] for t in treatments], seed=seed)
    weights = weights or [1.0] * len(pairs)
    return [
        Example(f"pair-{i}", tokens, treatment, weight, columns=COLUMNS[RESPONSES[treatment]])
        for i, (tokens, treatment, weight) in enumerate(zip(pairs, treatments, weights, strict=True))
    ]


TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer(*, template: str | None = TEMPLATE):
    """One token a byte, and the turn markers of a chat."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    special = ["<|end|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>"]
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(ByteLevel.alphabet())])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", chat_template=template
    )
