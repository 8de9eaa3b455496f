"""Asks as a user of the official library does: it retries by itself, as the server tells it to."""

import json
import sys
import time

from openai import OpenAI

url, calls = sys.argv[1], int(sys.argv[2])
client = OpenAI(base_url=url, api_key="of-this-test", max_retries=2, timeout=30)
question = [{"role": "user", "content": "Hello"}]
began = time.monotonic()
tokens = 0
for call in range(calls):
    if call % 2 == 0:
        answer = client.chat.completions.create(model="llama-sim", messages=question, max_tokens=3)
        tokens += answer.usage.completion_tokens
    else:
        events = client.chat.completions.create(model="llama-sim", messages=question, max_tokens=3, stream=True)
        tokens += sum(1 for event in events if event.choices and event.choices[0].delta.content)
print(json.dumps({"seconds": time.monotonic() - began, "tokens": tokens}))
