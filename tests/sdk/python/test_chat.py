"""Text answers, whole and streamed, tools, structured output, headers."""

import json
import re

import pytest
from conftest import TEXT_MODEL, user
from pydantic import BaseModel

# Durations as Go prints them: 0s, 4ms, 8.64s, 6m0s, 1h8m25.745s.
GO_DURATION = re.compile(r"(0s|\d+ms|(\d+h\d+m|\d+m)?\d+(\.\d{1,3})?s)")
RATE_LIMIT_HEADERS = [
    f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")
]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


def test_a_text_answer(client):
    completion = client.chat.completions.create(model=TEXT_MODEL, messages=user("Say hello."))
    [choice] = completion.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "stop"
    assert completion.model.startswith(TEXT_MODEL)
    usage = completion.usage
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert re.fullmatch(r"req_[0-9a-f]{32}", completion._request_id)


def test_several_choices_are_all_there_and_all_counted(client):
    one = client.chat.completions.create(model=TEXT_MODEL, messages=user("Say hello."))
    three = client.chat.completions.create(model=TEXT_MODEL, messages=user("Say hello."), n=3)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert three.usage.completion_tokens == 3 * one.usage.completion_tokens


def test_a_stated_maximum_ends_the_answer(client):
    completion = client.chat.completions.create(
        model=TEXT_MODEL, messages=user("Say hello."), max_completion_tokens=5
    )
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 5


def test_a_stream_hides_the_usage_nobody_asked_for(client):
    whole = client.chat.completions.create(model=TEXT_MODEL, messages=user("Say hello."))
    with client.chat.completions.create(model=TEXT_MODEL, messages=user("Say hello."), stream=True) as stream:
        chunks = list(stream)
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks), "the usage chunk has no choices"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_stream_shows_the_usage_that_was_asked_for(client):
    whole = client.chat.completions.create(model=TEXT_MODEL, messages=user("Say hello."))
    stream = client.chat.completions.create(
        model=TEXT_MODEL, messages=user("Say hello."), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    with_usage = [chunk for chunk in chunks if chunk.usage is not None]
    assert [chunk.choices for chunk in with_usage] == [[]]
    assert with_usage[0].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_streaming_helper_puts_the_answer_together(client):
    with client.chat.completions.stream(model=TEXT_MODEL, messages=user("Say hello.")) as stream:
        kinds = {event.type for event in stream}
        completion = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert completion.choices[0].message.content


def test_tools(client):
    messages = user("What is the weather in Paris?")
    completion = client.chat.completions.create(model=TEXT_MODEL, messages=messages, tools=[WEATHER])
    [choice] = completion.choices
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}

    result = {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "clear"}'}
    follow_up = [*messages, choice.message.to_dict(), result]
    answer = client.chat.completions.create(model=TEXT_MODEL, messages=follow_up, tools=[WEATHER])
    assert answer.choices[0].message.content


def test_streamed_tool_calls(client):
    messages = user("What is the weather in Paris and in London?")
    stream = client.chat.completions.create(model=TEXT_MODEL, messages=messages, tools=[WEATHER], stream=True)
    calls: dict[int, dict[str, str]] = {}
    reasons = []
    for chunk in stream:
        [choice] = chunk.choices
        reasons.append(choice.finish_reason)
        for piece in choice.delta.tool_calls or []:
            call = calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
            call["id"] += piece.id or ""
            call["name"] += piece.function.name or ""
            call["arguments"] += piece.function.arguments or ""
    assert sorted(calls) == [0, 1]
    assert reasons[-1] == "tool_calls"
    for call in calls.values():
        assert call["id"].startswith("call_")
        assert call["name"] == "get_weather"
        assert set(json.loads(call["arguments"])) == {"city", "days"}


def test_structured_output(client):
    class Event(BaseModel):
        name: str
        day: int

    completion = client.chat.completions.parse(
        model=TEXT_MODEL, messages=user("Tell me of an event."), response_format=Event
    )
    assert isinstance(completion.choices[0].message.parsed, Event)


@pytest.mark.parametrize("stream", [False, True])
def test_headers_of_an_answer(client, stream):
    raw = client.chat.completions.with_raw_response.create(
        model=TEXT_MODEL, messages=user("Say hello."), stream=stream
    )
    headers = raw.headers
    assert re.fullmatch(r"req_[0-9a-f]{32}", headers["x-request-id"])
    assert [name for name in RATE_LIMIT_HEADERS if name not in headers] == []
    for unit in ("requests", "tokens"):
        limit = int(headers[f"x-ratelimit-limit-{unit}"])
        remaining = int(headers[f"x-ratelimit-remaining-{unit}"])
        assert 0 <= remaining < limit
        assert GO_DURATION.fullmatch(headers[f"x-ratelimit-reset-{unit}"])
    answer = raw.parse()
    if stream:
        assert headers["content-type"].startswith("text/event-stream")
        assert sum(1 for _ in answer) > 1
    else:
        assert headers["content-type"].startswith("application/json")
        assert answer.choices


def test_request_ids_differ(client):
    ids = {client.chat.completions.create(model=TEXT_MODEL, messages=user("Hi."))._request_id for _ in range(5)}
    assert len(ids) == 5


def test_models(client):
    models = {model.id: model for model in client.models.list()}
    assert {TEXT_MODEL, "gpt-4o-mini-audio-preview"} <= models.keys()
    model = client.models.retrieve(TEXT_MODEL)
    assert model == models[TEXT_MODEL]
    assert (model.object, model.created > 0) == ("model", True)
