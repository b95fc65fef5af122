// What the SDK saw is what the organization API reports.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";

import { AUDIO_MODEL, TEXT_MODEL, collect, gateway, user } from "./gateway.mjs";

const PARALLEL_CALLS = 50;
// Pico-dollars a token; a dollar per million tokens is a million of them.
const PRICES = {
  [TEXT_MODEL]: { input: 150_000n, output: 600_000n },
  [AUDIO_MODEL]: { input: 150_000n, output: 600_000n, audioOutput: 20_000_000n },
};

const now = () => Math.floor(Date.now() / 1_000);

async function oneCall(client, number) {
  const messages = user(`Call ${number}: ${"tell me more. ".repeat(number)}`);
  if (number % 3 === 0) {
    const options = { model: TEXT_MODEL, messages, stream: true, stream_options: { include_usage: true } };
    const chunks = await collect(await client.chat.completions.create(options));
    return { model: TEXT_MODEL, usage: chunks.find((chunk) => chunk.usage != null).usage };
  }
  const speech = { modalities: ["text", "audio"], audio: { voice: "alloy", format: "wav" } };
  const options = number % 3 === 1 ? { model: TEXT_MODEL, messages } : { model: AUDIO_MODEL, messages, ...speech };
  return { model: options.model, usage: (await client.chat.completions.create(options)).usage };
}

const results = (page) => page.data.flatMap((bucket) => bucket.results);
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** Usage by model, once the ledger has caught up: it follows the requests by a moment. */
async function reported(since, key, requests) {
  const query = { start_time: since, bucket_width: "1d", project_ids: [key.projectId], group_by: ["model"] };
  for (let attempt = 0; ; attempt += 1) {
    const rows = results(await gateway.admin.usage.completions(query));
    if (attempt === 200 || sum(rows.map((row) => row.num_model_requests)) >= requests) return rows;
    await sleep(100);
  }
}

/** Cost in pico-dollars, in whole numbers. */
function costOf({ model, usage }) {
  const prices = PRICES[model];
  assert.equal(usage.prompt_tokens_details.cached_tokens, 0);
  assert.equal(usage.prompt_tokens_details.audio_tokens, 0);
  const spoken = usage.completion_tokens_details.audio_tokens;
  const written = usage.completion_tokens - spoken;
  return (
    BigInt(usage.prompt_tokens) * prices.input +
    BigInt(written) * prices.output +
    BigInt(spoken) * (prices.audioOutput ?? 0n)
  );
}

/** Decimal text of dollars as pico-dollars; a number with an exponent or more digits is no such text. */
function picoDollars(text) {
  const [, whole, fraction = ""] = /^(\d+)(?:\.(\d{1,12}))?$/.exec(text) ?? assert.fail(`not plain decimal: ${text}`);
  return BigInt(whole) * 10n ** 12n + BigInt(fraction.padEnd(12, "0"));
}

/** Amounts as they are written, not as a double has them. */
async function amounts(since, key) {
  const query = new URLSearchParams({ start_time: since, project_ids: key.projectId });
  const headers = { authorization: `Bearer ${gateway.adminKey}` };
  const response = await fetch(`${gateway.adminURL}/v1/organization/costs?${query}`, { headers });
  assert.equal(response.status, 200);
  return [...(await response.text()).matchAll(/"value":\s*"?([^,"}\s]+)/g)].map(([, text]) => picoDollars(text));
}

test("fifty parallel calls are metered and billed exactly", async () => {
  const key = await gateway.key();
  const client = gateway.client(key, { timeout: 60_000 });
  const since = now() - 60;
  const seen = await Promise.all(Array.from({ length: PARALLEL_CALLS }, (_, number) => oneCall(client, number)));

  const rows = await reported(since, key, PARALLEL_CALLS);
  const total = (field) => sum(rows.map((row) => row[field]));
  const expected = (count) => sum(seen.map(({ usage }) => count(usage)));
  assert.equal(total("num_model_requests"), PARALLEL_CALLS);
  assert.equal(total("input_tokens"), expected((usage) => usage.prompt_tokens));
  assert.equal(total("output_tokens"), expected((usage) => usage.completion_tokens));
  const spoken = expected((usage) => usage.completion_tokens_details.audio_tokens);
  assert.ok(spoken > 0);
  assert.equal(total("output_audio_tokens"), spoken);

  const cost = seen.map(costOf).reduce((sofar, each) => sofar + each, 0n);
  const billed = (await amounts(since, key)).reduce((sofar, each) => sofar + each, 0n);
  assert.equal(billed, cost);
});

test("the SDK's admin client reads costs", async () => {
  const key = await gateway.key();
  const since = now() - 60;
  const options = { model: TEXT_MODEL, messages: user("Say hello.") };
  const { usage } = await gateway.client(key).chat.completions.create(options);
  await reported(since, key, 1);
  const page = await gateway.admin.usage.costs({ start_time: since, project_ids: [key.projectId] });
  const [result] = results(page);
  assert.equal(result.amount.currency, "usd");
  assert.equal(result.amount.value, Number(costOf({ model: TEXT_MODEL, usage })) / 1e12);
});
