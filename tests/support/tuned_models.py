"""A small Llama that is really trained, within seconds: it spells, and learns short answers by heart."""

from pathlib import Path

import torch
from tiny_checkpoints import VOCABULARY

from realignment.likelihood.tokenization import chat_messages, prompt_text
from realignment.model import loading

CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>{% endif %}"
)


def save_untrained(folder: Path) -> str:
    """A checkpoint of two layers with random weights, one token per character."""
    from tokenizers import AddedToken, Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(BPE(vocab={token: i for i, token in enumerate(VOCABULARY)}, merges=[]))
    words.pre_tokenizer = ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    words.add_special_tokens([AddedToken(token, special=True) for token in VOCABULARY[:2]])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|end|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(VOCABULARY), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=4, eos_token_id=0, bos_token_id=1,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def tune(path: str, to: Path, examples: list[tuple[str, str]], *, steps: int, learning_rate: float) -> str:
    """Fine-tune the model at `path` on prompts with their answers, all in each step, and save it elsewhere.

    An example without a prompt is plain text.
    """
    model, tokenizer = loading.load_model(path, dtype="float32", device="cpu")
    tokens, answered = _encode(tokenizer, examples)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    for _ in range(steps):
        logits = model(input_ids=tokens).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        loss = losses[answered[:, 1:]].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)
    return str(to)


def _encode(tokenizer, examples: list[tuple[str, str]]):
    """Token ids (B, T), padded on the right where no attention looks, and which of them are learnt (B, T)."""
    rows = []
    for prompt, answer in examples:
        start = prompt_text(tokenizer, chat_messages(prompt)) if prompt else ""
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (start, answer + "<|end|>")]
        rows.append((len(ids[0]), ids[0] + ids[1]))
    width = max(len(ids) for _, ids in rows)
    tokens = torch.tensor([ids + [0] * (width - len(ids)) for _, ids in rows])
    places = torch.arange(width)
    answered = torch.stack([(places >= start) & (places < len(ids)) for start, ids in rows])
    return tokens, answered
