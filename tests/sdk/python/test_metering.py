"""What the SDK saw is what the organization API reports: every request, every token, every pico-dollar."""

import asyncio
import json
import re
import time
import urllib.request
from collections import Counter
from decimal import Decimal
from urllib.parse import urlencode

from conftest import AUDIO_MODEL, TEXT_MODEL, Gateway, Key, user
from openai import AsyncOpenAI

PARALLEL_CALLS = 50
MILLION = 1_000_000
# Dollars per million tokens, from the vendor's price list.
PRICES = {
    TEXT_MODEL: {"input": "0.15", "cached input": "0.075", "output": "0.60"},
    AUDIO_MODEL: {"input": "0.15", "audio input": "10", "output": "0.60", "audio output": "20"},
}


def kinds_of_tokens(usage) -> dict[str, int]:
    """Disjoint kinds of tokens, so that no token is paid for twice."""
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    audio_in, cached, audio_out = prompt.audio_tokens or 0, prompt.cached_tokens or 0, completion.audio_tokens or 0
    return {
        "input": usage.prompt_tokens - audio_in - cached,
        "cached input": cached,
        "audio input": audio_in,
        "output": usage.completion_tokens - audio_out,
        "audio output": audio_out,
    }


def cost_of(model: str, tokens: dict[str, int]) -> Decimal:
    return sum((Decimal(PRICES[model][kind]) * n / MILLION for kind, n in tokens.items() if n), Decimal(0))


async def one_call(client: AsyncOpenAI, number: int):
    """Text, a stream, speech, speech in a stream; some with a cached prompt. Returns the model and the usage."""
    messages = user(f"Call {number}: " + "tell me more. " * number)
    match number % 5:
        case 0 | 1:
            answer = await client.chat.completions.create(model=TEXT_MODEL, messages=messages)
            return TEXT_MODEL, answer.usage
        case 2:
            spoken = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
            answer = await client.chat.completions.create(model=AUDIO_MODEL, messages=messages, **spoken)
            return AUDIO_MODEL, answer.usage
        case 3:
            spoken = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
            return AUDIO_MODEL, await streamed(client, model=AUDIO_MODEL, messages=messages, **spoken)
        case _:
            long = user("A long beginning that stays the same. " * 150 + str(number))
            return TEXT_MODEL, await streamed(client, model=TEXT_MODEL, messages=long, prompt_cache_key="tests")


async def streamed(client: AsyncOpenAI, **options):
    stream = await client.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **options
    )
    usages = [chunk.usage async for chunk in stream if chunk.usage is not None]
    assert len(usages) == 1
    return usages[0]


async def all_calls(gateway: Gateway, key: Key):
    async with AsyncOpenAI(api_key=key.value, base_url=gateway.base_url, max_retries=0, timeout=60) as client:
        return await asyncio.gather(*(one_call(client, number) for number in range(PARALLEL_CALLS)))


def exact(gateway: Gateway, path: str, **query) -> dict:
    """An answer of the organization API with its numbers as they are written, not as a float has them."""
    url = f"{gateway.admin_url}/v1/organization/{path}?{urlencode(query, doseq=True)}"
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {gateway.admin_key}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read(), parse_float=Decimal)


def results(page) -> list:
    return [result for bucket in page.data for result in bucket.results]


def reported(gateway: Gateway, since: int, key: Key, expected_requests: int) -> list:
    """Usage by model, once the ledger has caught up: it follows the requests by a moment."""
    usage = gateway.admin.admin.organization.usage
    deadline = time.monotonic() + 20
    while True:
        page = usage.completions(
            start_time=since, bucket_width="1d", project_ids=[key.project_id], group_by=["model"]
        )
        rows = results(page)
        if sum(row.num_model_requests for row in rows) >= expected_requests or time.monotonic() > deadline:
            return rows
        time.sleep(0.1)


def test_fifty_parallel_calls_are_metered_and_billed_exactly(gateway):
    key, since = gateway.key(), int(time.time()) - 60
    seen = asyncio.run(all_calls(gateway, key))
    requests = Counter(model for model, _ in seen)
    tokens: dict[str, Counter] = {TEXT_MODEL: Counter(), AUDIO_MODEL: Counter()}
    for model, usage in seen:
        tokens[model].update(kinds_of_tokens(usage))
    assert tokens[TEXT_MODEL]["cached input"] > 0 and tokens[AUDIO_MODEL]["audio output"] > 0

    rows = reported(gateway, since, key, PARALLEL_CALLS)
    for model in (TEXT_MODEL, AUDIO_MODEL):
        # One row, or two when midnight fell into the test; models are billed by their dated names.
        total = totals(row for row in rows if is_of(row, model))
        counted = tokens[model]
        assert total["num_model_requests"] == requests[model]
        assert total["input_tokens"] == counted["input"] + counted["cached input"] + counted["audio input"]
        assert total["output_tokens"] == counted["output"] + counted["audio output"]
        assert total["input_cached_tokens"] == counted["cached input"]
        assert total["input_audio_tokens"] == counted["audio input"]
        assert total["output_audio_tokens"] == counted["audio output"]

    expected = sum((cost_of(model, counted) for model, counted in tokens.items()), Decimal(0))
    costs = exact(gateway, "costs", start_time=since, project_ids=key.project_id)
    amounts = [result["amount"] for bucket in costs["data"] for result in bucket["results"]]
    assert sum((Decimal(amount["value"]) for amount in amounts), Decimal(0)) == expected
    assert {amount["currency"] for amount in amounts} == {"usd"}

    by_line_item = exact(gateway, "costs", start_time=since, project_ids=key.project_id, group_by="line_item")
    lines = [result for bucket in by_line_item["data"] for result in bucket["results"]]
    assert sum((Decimal(line["amount"]["value"]) for line in lines), Decimal(0)) == expected


def is_of(row, model: str) -> bool:
    """`gpt-4o-mini-2024-07-18` is `gpt-4o-mini`, `gpt-4o-mini-audio-preview-2024-12-17` is not."""
    return re.fullmatch(re.escape(model) + r"(-\d{4}-\d{2}-\d{2})?", row.model) is not None


def totals(rows) -> Counter:
    total = Counter()
    for row in rows:
        total.update({name: value for name, value in row.to_dict().items() if isinstance(value, int)})
    return total


def test_the_sdks_admin_client_reads_costs(gateway):
    key, since = gateway.key(), int(time.time()) - 60
    answer = gateway.client(key).chat.completions.create(model=TEXT_MODEL, messages=user("Say hello."))
    reported(gateway, since, key, 1)
    page = gateway.admin.admin.organization.usage.costs(start_time=since, project_ids=[key.project_id])
    expected = cost_of(TEXT_MODEL, kinds_of_tokens(answer.usage))
    value = sum(Decimal(str(result.amount.value)) for result in results(page))
    assert value == expected


def test_usage_can_be_told_apart_by_key(gateway):
    first, since = gateway.key(), int(time.time()) - 60
    account = gateway.admin.admin.organization.projects.service_accounts.create(first.project_id, name="second")
    second = Key(first.project_id, account.api_key.id, account.api_key.value)
    for key, calls in ((first, 1), (second, 2)):
        for _ in range(calls):
            gateway.client(key).chat.completions.create(model=TEXT_MODEL, messages=user("Hi."))
    reported(gateway, since, first, 3)
    page = gateway.admin.admin.organization.usage.completions(
        start_time=since, project_ids=[first.project_id], group_by=["api_key_id"]
    )
    counted = Counter()
    for row in results(page):
        counted[row.api_key_id] += row.num_model_requests
    assert counted == {first.id: 1, second.id: 2}


def test_a_client_that_leaves_is_still_metered(gateway):
    key, since = gateway.key(), int(time.time()) - 60
    with gateway.client(key).chat.completions.create(
        model=TEXT_MODEL, messages=user("Say hello."), stream=True
    ) as stream:
        next(iter(stream))
    rows = reported(gateway, since, key, 1)
    assert [row.num_model_requests for row in rows] == [1]
    assert rows[0].output_tokens > 0
