"""A program that answers a file in OpenAI's batch format, by asking a server; it can fail in every way.

`python batch_command.py INPUT OUTPUT URL [FAULT]`. The lines that it writes have the fields of those of
`vllm run-batch`. Every start leaves a line in `starts` beside the folders of the partitions.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


def ask(url, body):
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return 200, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def answer(line, url):
    request = json.loads(line)
    assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
    status, body = ask(url, request["body"])
    fine = status == 200
    response = {"status_code": status, "request_id": "vllm-batch-1", "body": body if fine else None}
    return {"id": "vllm-1", "custom_id": request["custom_id"], "response": response,
            "error": None if fine else body}  # fmt: skip


def refuse(reply, error, status=400, body=None):
    return reply | {"response": {"status_code": status, "request_id": "1", "body": body}, "error": error}


def turn(reply):
    """The same reply with the other verdict."""
    text = json.dumps(reply)
    before, after = ("COMPLIES", "VIOLATES") if "COMPLIES" in text else ("VIOLATES", "COMPLIES")
    return json.loads(text.replace(before, after))


LINES = {
    "reversed": lambda replies: replies[::-1],
    "missing": lambda replies: replies[1:],
    "unknown": lambda replies: [replies[0] | {"custom_id": "of another file"}, *replies],
    "doubled": lambda replies: [*replies, *replies],
    "contradicted": lambda replies: [*replies, turn(replies[0]), replies[0]],
    "vllm error": lambda replies: [refuse(replies[0], "too long"), *replies[1:]],
    "vllm error object": lambda replies: [
        refuse(replies[0], {"error": {"message": "too long", "type": "BadRequestError", "code": 400}}),
        *replies[1:],
    ],
    "openai error": lambda replies: [
        refuse(replies[0], None, body={"error": {"message": "too long"}}),
        *replies[1:],
    ],
    "openai expired": lambda replies: [
        replies[0] | {"response": None, "error": {"code": "batch_expired", "message": "too late"}},
        *replies[1:],
    ],
    "a body beside an error": lambda replies: [replies[0] | {"error": "content filter"}, *replies[1:]],
    "a body beside a status": lambda replies: [
        refuse(replies[0], None, 500, replies[0]["response"]["body"]),
        *replies[1:],
    ],
    "no completion": lambda replies: [refuse(replies[0], None, 200, {"choices": []}), *replies[1:]],
    "error, then answered": lambda replies: [refuse(replies[0], "overloaded", 503), *replies],
    "all refused": lambda replies: [
        refuse(reply, {"message": "The model `m` does not exist."}, 404) for reply in replies
    ],
}


def main():
    source, target, url, *fault = sys.argv[1:]
    fault = fault[0] if fault else ""
    with (Path(source).parents[1] / "starts").open("a") as starts:
        starts.write(f"{source}\n")
    lines = Path(source).read_text().splitlines()
    if fault in ("fails", "hangs"):
        lines = lines[: len(lines) // 2]
    if fault == "writes nothing":
        return 0
    replies = LINES.get(fault, list)([answer(line, url) for line in lines])
    text = [json.dumps(reply) for reply in replies]
    if fault == "fails":
        text[0:0] = [json.dumps(replies[0] | {"custom_id": "of another file"})]
    if fault == "half a line":
        text[-1] = text[-1][: len(text[-1]) // 2]
    if fault == "no JSON":
        text[0:1] = ["INFO: loading the model", "[1, 2]", "{}", '{"custom_id": 7}', "\udcff"]
    with open(target, "w", errors="surrogateescape") as output:
        output.write("\n".join(text) + ("" if fault == "half a line" else "\n"))
        if fault == "fails":
            output.write('{"id": "vllm-1", "cust')
    if fault == "fails":
        sys.stderr.write("Loading weights\nCUDA out of memory\n")
        return 3
    if fault == "hangs":
        process = Path(target).with_name("process")
        process.write_text(str(os.getpid()))
        process.rename(process.with_name("hangs"))
        time.sleep(600)
    return 0


if __name__ == "__main__":
    sys.exit(main())
