// Errors and limits arrive as the SDK's own error classes, with the fields of the body.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

import { AUDIO_MODEL, TEXT_MODEL, collect, gateway, unpricedGateway, user } from "./gateway.mjs";

const hello = { model: TEXT_MODEL, messages: user("Hi.") };

/** The error of `call`, which must be of `kind`. */
async function errorOf(kind, call) {
  try {
    await call;
  } catch (error) {
    assert.ok(error instanceof kind, `${error.constructor.name} is not ${kind.name}: ${error.message}`);
    return error;
  }
  assert.fail(`it did not fail with ${kind.name}`);
}

test("a wrong key", async () => {
  const wrong = new OpenAI({ apiKey: `sk-proj-${"x".repeat(48)}`, baseURL: gateway.baseURL, maxRetries: 0 });
  const error = await errorOf(OpenAI.AuthenticationError, wrong.chat.completions.create(hello));
  assert.deepEqual([error.status, error.type, error.code], [401, "invalid_request_error", "invalid_api_key"]);
  assert.match(error.requestID, /^req_[0-9a-f]{32}$/);
});

test("a revoked key is refused at once", async () => {
  const key = await gateway.key();
  const client = gateway.client(key);
  await client.chat.completions.create(hello);
  await gateway.admin.projects.apiKeys.delete(key.id, { project_id: key.projectId });
  await errorOf(OpenAI.AuthenticationError, client.chat.completions.create(hello));
});

test("keys open only their own door", async () => {
  const key = await gateway.key();
  const asTeam = new OpenAI({ apiKey: gateway.adminKey, baseURL: gateway.baseURL, maxRetries: 0 });
  await errorOf(OpenAI.AuthenticationError, asTeam.chat.completions.create(hello));
  const options = { apiKey: "not used here", adminAPIKey: key.value, baseURL: `${gateway.adminURL}/v1`, maxRetries: 0 };
  await errorOf(OpenAI.PermissionDeniedError, collect(new OpenAI(options).admin.organization.projects.list()));
});

test("an unknown model", async () => {
  const client = await gateway.newClient();
  const call = client.chat.completions.create({ ...hello, model: "no-such-model" });
  const error = await errorOf(OpenAI.NotFoundError, call);
  assert.deepEqual([error.code, error.param], ["model_not_found", null]);
  await errorOf(OpenAI.NotFoundError, client.models.retrieve("no-such-model"));
});

test("bad requests", async () => {
  const client = await gateway.newClient();
  const cases = [
    [{ messages: [] }, "messages", "empty_array"],
    [{ n: 0 }, "n", "integer_below_min_value"],
    [{ stream_options: { include_usage: true } }, "stream_options", null],
    // Refused behind the gateway, and passed on as it came.
    [{ model: AUDIO_MODEL }, "model", "invalid_value"],
  ];
  for (const [changes, param, code] of cases) {
    const call = client.chat.completions.create({ ...hello, ...changes });
    const error = await errorOf(OpenAI.BadRequestError, call);
    assert.deepEqual([error.type, error.param, error.code], ["invalid_request_error", param, code]);
  }
});

test("failures of the upstream", async () => {
  const client = await unpricedGateway.newClient();
  const call = (fault) => client.chat.completions.create({ ...hello, model: `sim-${fault}` });
  const error = await errorOf(OpenAI.InternalServerError, call("500"));
  assert.deepEqual([error.status, error.type], [500, "server_error"]);
  const broken = await errorOf(OpenAI.InternalServerError, call("cut-body"));
  assert.equal(broken.status, 502);
  const stream = await client.chat.completions.create({ ...hello, model: "sim-error-event", stream: true });
  const inside = await errorOf(OpenAI.APIError, collect(stream));
  assert.equal(inside.type, "server_error");
});

test("the free tier has three requests a minute", async () => {
  const client = gateway.client(await gateway.key({ tier: "free" }));
  const options = {
    model: AUDIO_MODEL,
    modalities: ["text", "audio"],
    audio: { voice: "alloy", format: "wav" },
    messages: user("Hi."),
  };
  for (let n = 0; n < 3; n += 1) await client.chat.completions.create(options);
  const error = await errorOf(OpenAI.RateLimitError, client.chat.completions.create(options));
  assert.deepEqual([error.type, error.code, error.param], ["requests", "rate_limit_exceeded", null]);
  assert.match(error.message, /on requests per min \(RPM\): Limit 3, Used 3, Requested 1\. Please try again in /);
  assert.ok(Number(error.headers.get("retry-after")) <= 20);
});

test("a client that waits as told is served", async () => {
  const key = await gateway.key({ limits: { requests_per_minute: 60 } });
  const client = gateway.client(key);
  let refusal;
  for (let n = 0; n < 500 && !refusal; n += 1) {
    refusal = await client.chat.completions.create(hello).then(() => undefined, (error) => error);
  }
  assert.ok(refusal instanceof OpenAI.RateLimitError);
  const wait = Number(refusal.headers.get("retry-after-ms"));
  assert.ok(wait >= 1 && wait <= 1_000, `60 a minute is one each second, not one in ${wait} ms`);
  const completion = await gateway.client(key, { maxRetries: 1 }).chat.completions.create(hello);
  assert.ok(completion.choices[0].message.content);
});

/** How often a key's own requests per minute were refused since the start. */
async function refusals() {
  const headers = { authorization: `Bearer ${gateway.adminKey}` };
  const page = await (await fetch(`${gateway.adminURL}/metrics`, { headers })).text();
  const name = 'tollgate_requests_refused_total{limit="requests_per_minute",scope="key"} ';
  const line = page.split("\n").find((line) => line.startsWith(name));
  return line ? Number(line.slice(name.length)) : 0;
}

test("the SDK's own retry makes it through a refusal without a second one", async () => {
  const client = gateway.client(await gateway.key({ limits: { requests_per_minute: 20 } }), { maxRetries: 2 });
  const before = await refusals();
  // Twenty at once, and one comes back every three seconds: in the end one call is refused.
  for (let n = 0; n < 40 && (await refusals()) === before; n += 1) {
    const completion = await client.chat.completions.create(hello);
    assert.ok(completion.choices[0].message.content);
  }
  assert.equal((await refusals()) - before, 1);
});
