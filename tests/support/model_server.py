"""A small server that speaks OpenAI's chat completions with a real model: greedy, JSON schema, logprobs.

`python -m model_server FOLDER PORT`, as a process of its own. The model writes the reason and chooses
the verdict; the braces around them are the schema's, as a grammar would force them.
"""

import json
import sys

import torch

from realignment.model.loading import load_model

REASON_TOKENS = 6
VERDICTS = ("COMPLIES", "VIOLATES")


class Judge:
    def __init__(self, folder):
        self.model, self.tokenizer = load_model(folder, dtype="float32", device="cpu")

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]

    def prompt(self, messages):
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    @torch.inference_mode()
    def reply(self, messages):
        """The text of the reply up to the verdict, the verdict's first token, and both log-probabilities."""
        text = self.prompt(messages) + '{"reason": "'
        written = self.model.generate(self.ids(text), max_new_tokens=REASON_TOKENS, do_sample=False)
        reason = self.tokenizer.decode(written[0, self.ids(text).shape[1] :], skip_special_tokens=True)
        head = f'{{"reason": {json.dumps(reason)}, "rules_broken": [], "verdict": "'
        logprobs = self.model(self.ids(self.prompt(messages) + head)).logits[0, -1].log_softmax(-1)
        first = {word: self.ids(word)[0, 0] for word in VERDICTS}
        listed = {
            word: (self.tokenizer.decode([first[word]]), float(logprobs[first[word]])) for word in VERDICTS
        }
        return head, listed


def serve(folder, port):
    import uvicorn
    from fastapi import FastAPI

    judge, app = Judge(folder), FastAPI()

    @app.get("/health")
    def health():
        return {}

    @app.post("/v1/chat/completions")
    def complete(body: dict):
        head, listed = judge.reply(body["messages"])
        verdict = max(VERDICTS, key=lambda word: listed[word][1])
        token, logprob = listed[verdict]
        top = [{"token": text, "logprob": p} for text, p in listed.values()]
        rest = verdict[len(token) :] + '"}'
        tokens = [
            {"token": head, "logprob": 0.0, "top_logprobs": []},
            {"token": token, "logprob": logprob, "top_logprobs": top},
            {"token": rest, "logprob": 0.0, "top_logprobs": []},
        ]
        counts = {"prompt_tokens": judge.ids(judge.prompt(body["messages"])).shape[1]}
        counts["completion_tokens"] = judge.ids(head + token + rest).shape[1]
        message = {"role": "assistant", "content": head + token + rest}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": {"content": tokens}}
        return {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
                "choices": [choice], "usage": counts}  # fmt: skip

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
