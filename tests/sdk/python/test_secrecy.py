"""Sends what must not be kept: `scripts/test` looks for it afterwards in everything that the gateways left behind."""

import os

import pytest
from conftest import AUDIO_MODEL, TEXT_MODEL, Gateway, user
from openai import APIError

PROMPT = os.environ.get("TOLLGATE_DEMO_PROMPT", "a prompt that nobody looks for")
AUDIO = os.environ.get("TOLLGATE_DEMO_AUDIO", "UklGRnobodylooksforthis")


def test_prompts_and_audio_are_sent_in_good_requests_and_bad_ones(gateway: Gateway):
    client = gateway.client()
    answer = client.chat.completions.create(model=TEXT_MODEL, messages=user(PROMPT), user=PROMPT)
    assert answer.usage.prompt_tokens > 0
    for _ in client.chat.completions.create(model=TEXT_MODEL, messages=user(PROMPT), stream=True):
        pass
    clip = [{"type": "input_audio", "input_audio": {"data": AUDIO, "format": "wav"}}]
    for wrong in (
        {"model": AUDIO_MODEL, "messages": [{"role": "user", "content": clip}], "n": 0},
        {"model": "no-such-model", "messages": user(PROMPT)},
        {"model": TEXT_MODEL, "messages": user(PROMPT), "extra_headers": {"x-simulate": "500"}},
        {"model": TEXT_MODEL, "messages": user(PROMPT), "extra_headers": {"x-simulate": "garbage"}},
    ):
        with pytest.raises(APIError):
            client.chat.completions.create(**wrong)
