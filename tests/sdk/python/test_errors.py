"""Errors arrive as the SDK's exceptions, with all four fields of the body."""

import re

import openai
import pytest
from conftest import AUDIO_MODEL, TEXT_MODEL, user
from openai import OpenAI


def body_of(error: openai.APIStatusError) -> dict:
    """The error object; the SDK hands it out without its envelope."""
    assert set(error.body) == {"message", "type", "param", "code"}
    assert error.body["message"]
    return error.body


def has_request_id(error: openai.APIStatusError) -> bool:
    return re.fullmatch(r"req_[0-9a-f]{32}", error.request_id or "") is not None


def test_a_wrong_key(gateway):
    wrong = OpenAI(api_key="sk-proj-" + "x" * 48, base_url=gateway.base_url, max_retries=0)
    with pytest.raises(openai.AuthenticationError) as caught:
        wrong.chat.completions.create(model=TEXT_MODEL, messages=user("Hi."))
    body = body_of(caught.value)
    assert (body["type"], body["code"]) == ("invalid_request_error", "invalid_api_key")
    assert "x" * 12 not in body["message"], "the key is not repeated"
    assert has_request_id(caught.value)


def test_a_revoked_key_is_refused_at_once(gateway):
    key = gateway.key()
    client = gateway.client(key)
    client.chat.completions.create(model=TEXT_MODEL, messages=user("Hi."))
    gateway.admin.admin.organization.projects.api_keys.delete(key.id, project_id=key.project_id)
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model=TEXT_MODEL, messages=user("Hi."))


def test_keys_open_only_their_own_door(gateway):
    key = gateway.key()
    with pytest.raises(openai.AuthenticationError):
        OpenAI(api_key=gateway.admin_key, base_url=gateway.base_url, max_retries=0).models.list()
    trespasser = OpenAI(
        api_key="not used here", admin_api_key=key.value, base_url=f"{gateway.admin_url}/v1", max_retries=0
    )
    with pytest.raises(openai.PermissionDeniedError):
        trespasser.admin.organization.projects.list()


def test_an_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=user("Hi."))
    body = body_of(caught.value)
    assert body["code"] == "model_not_found"
    assert "no-such-model" in body["message"]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"messages": []}, "messages", "empty_array"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "integer_below_min_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        # Refused behind the gateway, and passed on as it came.
        ({"model": AUDIO_MODEL}, "model", "invalid_value"),
        ({"service_tier": "express"}, "service_tier", None),
    ],
)
def test_a_bad_request(client, changes, param, code):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": TEXT_MODEL, "messages": user("Hi."), **changes})
    body = body_of(caught.value)
    assert (body["type"], body["param"], body["code"]) == ("invalid_request_error", param, code)
    assert has_request_id(caught.value)


def test_a_body_that_is_not_json(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", cast_to=object, content=b'{"model": "gpt-4o-mini", ')
    assert "could not parse the JSON body" in body_of(caught.value)["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_of_the_upstream(unpriced_gateway, stream):
    client = unpriced_gateway.client()
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="sim-500", messages=user("Hi."), stream=stream)
    assert caught.value.status_code == 500
    assert body_of(caught.value)["type"] == "server_error"


@pytest.mark.parametrize("fault", ["cut-body", "garbage", "html", "redirect", "reset"])
def test_an_answer_that_cannot_be_used_is_a_bad_gateway(unpriced_gateway, fault):
    client = unpriced_gateway.client()
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=f"sim-{fault}", messages=user("Hi."))
    assert caught.value.status_code == 502
    assert body_of(caught.value)["code"].startswith("upstream_")


def test_an_error_inside_a_stream(unpriced_gateway):
    client = unpriced_gateway.client()
    stream = client.chat.completions.create(model="sim-error-event", messages=user("Hi."), stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.type == "server_error"


def test_a_stream_that_breaks_off_is_not_taken_for_complete(unpriced_gateway):
    client = unpriced_gateway.client()
    stream = client.chat.completions.create(model="sim-cut-event", messages=user("Hi."), stream=True)
    with pytest.raises(Exception) as caught:
        list(stream)
    assert not isinstance(caught.value, AssertionError)
