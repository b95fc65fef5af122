"""Limits: they hold, they say when to come back, and the SDK's own retries come back then."""

import re
import time
import urllib.request

import openai
import pytest
from conftest import AUDIO_MODEL, TEXT_MODEL, user

SPOKEN = {"model": AUDIO_MODEL, "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}


def test_the_free_tier_has_three_requests_a_minute(gateway):
    client = gateway.client(gateway.key(tier="free"))
    for _ in range(3):
        client.chat.completions.create(messages=user("Hi."), **SPOKEN)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(messages=user("Hi."), **SPOKEN)
    error = caught.value
    assert (error.type, error.code, error.param) == ("requests", "rate_limit_exceeded", None)
    pattern = (
        rf"Rate limit reached for {AUDIO_MODEL} in organization \S+ on requests per min \(RPM\): "
        r"Limit 3, Used 3, Requested 1\. Please try again in (19\.\d+|20)s\. .*"
    )
    assert re.fullmatch(pattern, error.body["message"])
    headers = error.response.headers
    assert 1 <= int(headers["retry-after"]) <= 20
    assert 1 <= int(headers["retry-after-ms"]) <= 20_000
    assert int(headers["x-ratelimit-remaining-tokens"]) > 0


def test_limits_are_per_model(gateway):
    client = gateway.client(gateway.key(tier="free"))
    for _ in range(3):
        client.chat.completions.create(messages=user("Hi."), **SPOKEN)
    client.chat.completions.create(model=TEXT_MODEL, messages=user("Hi."))


def exhaust(client) -> openai.RateLimitError:
    """Sends until the limit refuses."""
    for _ in range(500):
        try:
            client.chat.completions.create(model=TEXT_MODEL, messages=user("Hi."))
        except openai.RateLimitError as error:
            return error
    pytest.fail("500 requests were not refused by a limit of 60 a minute")


def test_a_client_that_waits_as_told_is_served(gateway):
    key = gateway.key(requests_per_minute=60)
    error = exhaust(gateway.client(key))
    wait_ms = int(error.response.headers["retry-after-ms"])
    assert 1 <= wait_ms <= 1_000, "60 a minute is one each second"

    patient = gateway.client(key, max_retries=1)
    exhaust(gateway.client(key))
    started = time.monotonic()
    raw = patient.chat.completions.with_raw_response.create(model=TEXT_MODEL, messages=user("Hi."))
    assert raw.status_code == 200
    assert raw.retries_taken <= 1
    assert time.monotonic() - started < 5


def refusals(gateway) -> int:
    """How often a key's own requests per minute were refused since the start."""
    headers = {"authorization": f"Bearer {gateway.admin_key}"}
    with urllib.request.urlopen(urllib.request.Request(f"{gateway.admin_url}/metrics", headers=headers)) as answer:
        page = answer.read().decode()
    name = 'tollgate_requests_refused_total{limit="requests_per_minute",scope="key"}'
    return next((int(line.split()[-1]) for line in page.splitlines() if line.startswith(name)), 0)


def test_the_sdks_own_retry_makes_it_through_a_refusal_without_a_second_one(gateway):
    client = gateway.client(gateway.key(requests_per_minute=20), max_retries=2)
    before = refusals(gateway)
    call = client.chat.completions.with_raw_response.create
    # Twenty at once, and one comes back every three seconds: in the end one call is refused.
    for _ in range(40):
        raw = call(model=TEXT_MODEL, messages=user("Hi."))
        assert raw.status_code == 200
        if raw.retries_taken > 0:
            break
    assert raw.retries_taken == 1
    assert refusals(gateway) - before == 1


def test_a_limit_refuses_nobody_while_it_has_room_and_nothing_past_it(gateway):
    key = gateway.key(requests_per_minute=60)
    client = gateway.client(key)
    started = time.monotonic()
    served = 0
    while True:
        try:
            client.chat.completions.create(model=TEXT_MODEL, messages=user("Hi."))
            served += 1
        except openai.RateLimitError:
            break
    elapsed = time.monotonic() - started
    assert 60 <= served <= 60 + elapsed + 1


def test_a_request_larger_than_the_limit_is_not_worth_a_retry(gateway):
    client = gateway.client(gateway.key(tokens_per_minute=100), max_retries=2)
    started = time.monotonic()
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model=TEXT_MODEL, messages=user("word " * 1_000))
    assert caught.value.type == "tokens"
    assert caught.value.body["message"].startswith(f"Request too large for {TEXT_MODEL} in organization ")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert time.monotonic() - started < 0.5, "the SDK did not wait for a retry"
