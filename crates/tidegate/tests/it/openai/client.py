"""Asks a model in every framing, and prints what the official client made of each answer, a line each."""

import json
import sys

from openai import OpenAI

base_url, key = sys.argv[1:3]


def told(answer):
    """What a client may act on. A chunk's `"usage": null` says nothing."""
    answer = answer.to_dict(mode="json")
    if answer.get("usage", 0) is None:
        del answer["usage"]
    return answer


def client(path):
    return OpenAI(base_url=base_url + path, api_key=key, max_retries=0, timeout=30)


for path in ["/v1", "/packed/v1"]:
    chats = client(path).chat.completions
    for framing in ["whole", "bytes", "crlf", "odd", "pings", "silent"]:
        ask = {"model": "m", "messages": [{"role": "user", "content": framing}]}
        print(json.dumps([told(chunk) for chunk in chats.create(**ask, stream=True)], sort_keys=True))
        asked = chats.create(**ask, stream=True, stream_options={"include_usage": True})
        print(json.dumps([told(chunk) for chunk in asked], sort_keys=True))
        print(json.dumps(told(chats.create(**ask)), sort_keys=True))

responses = client("/v1").responses
for framing in ["whole", "bytes", "crlf", "odd", "pings"]:
    events = responses.create(model="m", input=framing, stream=True)
    print(json.dumps([told(event) for event in events], sort_keys=True))
    print(responses.create(model="m", input=framing).output_text)
