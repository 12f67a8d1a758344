"""The packages openai and prometheus_client against a server. Usage: clients.py PORT. Exit 77: a package is missing."""
import sys
import urllib.request

try:
    import openai
    from prometheus_client.parser import text_string_to_metric_families
except ImportError:
    sys.exit(77)

base = f"http://127.0.0.1:{sys.argv[1]}"
client = openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0)
question = [{"role": "user", "content": "Who tells of it?"}]

assert [m.id for m in client.models.list()] == ["tiny"]
reply = client.chat.completions.create(model="tiny", messages=question, max_tokens=12, extra_body={"memory": {"trace": True}})
assert reply.object == "chat.completion" and reply.choices[0].finish_reason in ("stop", "length"), reply
assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
assert reply.memory["documents"] and reply.memory["hops"]

text, last, usage = "", None, None
for chunk in client.chat.completions.create(model="tiny", messages=question, max_tokens=12, stream=True,
                                            stream_options={"include_usage": True}):
    usage = chunk.usage or usage
    for choice in chunk.choices:
        text += choice.delta.content or ""
        last = choice.finish_reason or last
assert text == reply.choices[0].message.content, (text, reply)
assert last == reply.choices[0].finish_reason and usage == reply.usage

sampled = [client.chat.completions.create(model="tiny", messages=question, max_tokens=12, temperature=1.5, seed=seed)
           .choices[0].message.content for seed in (1, 1, 2, 3, 4)]
assert sampled[0] == sampled[1] and len(set(sampled)) > 1, sampled

stop = next(c for c in reply.choices[0].message.content if c != "\ufffd")  # half a character of the tiny model's
cut = client.completions.create(model="tiny", prompt=question[0]["content"], max_tokens=12, stop=stop)
assert cut.object == "text_completion" and stop not in cut.choices[0].text and cut.choices[0].finish_reason == "stop"

for wrong, error in (({"n": 2}, openai.BadRequestError), ({"model": "x"}, openai.NotFoundError),
                     ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError)):
    try:
        client.chat.completions.create(**{"model": "tiny", "messages": question, **wrong})
        sys.exit(f"not refused: {wrong}")
    except error as e:
        assert e.body["message"] and e.body["type"] == "invalid_request_error", e.body

metrics = {m.name: m for m in text_string_to_metric_families(urllib.request.urlopen(base + "/metrics").read().decode())}
assert metrics["msa_bank_documents"].samples[0].value == 6
answered = [s.value for s in metrics["msa_requests"].samples
            if s.labels == {"route": "/v1/chat/completions", "status": "200"}]
assert answered == [7], metrics["msa_requests"].samples
assert any(s.name == "msa_request_seconds_count" for s in metrics["msa_request_seconds"].samples)
print("openai", openai.__version__, "understands it")
