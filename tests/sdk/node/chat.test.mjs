// Text answers, whole and streamed, tools, headers, models.

import assert from "node:assert/strict";
import { test } from "node:test";

import { AUDIO_MODEL, TEXT_MODEL, collect, gateway, user } from "./gateway.mjs";

// Durations as Go prints them: 0s, 4ms, 8.64s, 6m0s, 1h8m25.745s.
const GO_DURATION = /^(0s|\d+ms|(\d+h\d+m|\d+m)?\d+(\.\d{1,3})?s)$/;
const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string" }, days: { type: "integer" } },
      required: ["city", "days"],
    },
  },
};
const hello = { model: TEXT_MODEL, messages: user("Say hello.") };

test("a text answer", async () => {
  const client = await gateway.newClient();
  const completion = await client.chat.completions.create(hello);
  assert.equal(completion.choices.length, 1);
  assert.ok(completion.choices[0].message.content);
  assert.equal(completion.choices[0].finish_reason, "stop");
  const { prompt_tokens, completion_tokens, total_tokens } = completion.usage;
  assert.ok(prompt_tokens > 0 && completion_tokens > 0);
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
  assert.match(completion._request_id, /^req_[0-9a-f]{32}$/);
});

test("a stream hides the usage nobody asked for", async () => {
  const client = await gateway.newClient();
  const whole = await client.chat.completions.create(hello);
  const chunks = await collect(await client.chat.completions.create({ ...hello, stream: true }));
  assert.ok(chunks.every((chunk) => chunk.usage == null));
  assert.ok(chunks.every((chunk) => chunk.choices.length > 0), "the usage chunk has no choices");
  const text = chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("");
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
});

test("a stream shows the usage that was asked for", async () => {
  const client = await gateway.newClient();
  const whole = await client.chat.completions.create(hello);
  const options = { ...hello, stream: true, stream_options: { include_usage: true } };
  const chunks = await collect(await client.chat.completions.create(options));
  const withUsage = chunks.filter((chunk) => chunk.usage != null);
  assert.deepEqual(withUsage.map((chunk) => chunk.choices), [[]]);
  assert.deepEqual(withUsage[0].usage, whole.usage);
});

test("the streaming helper puts the answer together", async () => {
  const client = await gateway.newClient();
  const completion = await client.chat.completions.stream(hello).finalChatCompletion();
  assert.ok(completion.choices[0].message.content);
});

test("tools", async () => {
  const client = await gateway.newClient();
  const messages = user("What is the weather in Paris?");
  const completion = await client.chat.completions.create({ model: TEXT_MODEL, messages, tools: [WEATHER] });
  const [choice] = completion.choices;
  assert.equal(choice.finish_reason, "tool_calls");
  const [call] = choice.message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)).sort(), ["city", "days"]);

  const result = { role: "tool", tool_call_id: call.id, content: '{"sky": "clear"}' };
  const followUp = { model: TEXT_MODEL, messages: [...messages, choice.message, result], tools: [WEATHER] };
  const answer = await client.chat.completions.create(followUp);
  assert.ok(answer.choices[0].message.content);
});

test("streamed tool calls", async () => {
  const client = await gateway.newClient();
  const messages = user("What is the weather in Paris and in London?");
  const options = { model: TEXT_MODEL, messages, tools: [WEATHER], stream: true };
  const chunks = await collect(await client.chat.completions.create(options));
  const calls = [];
  for (const piece of chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? [])) {
    calls[piece.index] ??= { id: "", name: "", arguments: "" };
    calls[piece.index].id += piece.id ?? "";
    calls[piece.index].name += piece.function.name ?? "";
    calls[piece.index].arguments += piece.function.arguments ?? "";
  }
  assert.equal(calls.length, 2);
  for (const call of calls) {
    assert.match(call.id, /^call_/);
    assert.equal(call.name, "get_weather");
    assert.deepEqual(Object.keys(JSON.parse(call.arguments)).sort(), ["city", "days"]);
  }
  assert.equal(chunks.at(-1).choices[0].finish_reason, "tool_calls");
});

test("headers of an answer", async () => {
  const client = await gateway.newClient();
  for (const stream of [false, true]) {
    const { data, response } = await client.chat.completions.create({ ...hello, stream }).withResponse();
    const { headers } = response;
    assert.match(headers.get("x-request-id"), /^req_[0-9a-f]{32}$/);
    for (const unit of ["requests", "tokens"]) {
      const limit = Number(headers.get(`x-ratelimit-limit-${unit}`));
      const remaining = Number(headers.get(`x-ratelimit-remaining-${unit}`));
      assert.ok(remaining >= 0 && remaining < limit, `${unit}: ${remaining} of ${limit}`);
      assert.match(headers.get(`x-ratelimit-reset-${unit}`), GO_DURATION);
    }
    if (stream) assert.ok((await collect(data)).length > 1);
  }
});

test("models", async () => {
  const client = await gateway.newClient();
  const models = await collect(client.models.list());
  const ids = models.map((model) => model.id);
  assert.ok(ids.includes(TEXT_MODEL) && ids.includes(AUDIO_MODEL));
  const model = await client.models.retrieve(TEXT_MODEL);
  assert.deepEqual(model, models.find(({ id }) => id === TEXT_MODEL));
});
