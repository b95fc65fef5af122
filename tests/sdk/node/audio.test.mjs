// Audio in and out: its lengths are its tokens.

import assert from "node:assert/strict";
import { test } from "node:test";

import { AUDIO_MODEL, collect, gateway, user } from "./gateway.mjs";

const SAMPLE_RATE = 24_000;
// A spoken answer costs 20 tokens a second; a clip that is heard costs 10.
const BYTES_PER_OUTPUT_TOKEN = (SAMPLE_RATE * 2) / 20;
const WAV_HEAD_BYTES = 44;

/** A tone as a wav file in base64. */
function aWav(milliseconds) {
  const samples = Math.floor((SAMPLE_RATE * milliseconds) / 1_000);
  const file = Buffer.alloc(WAV_HEAD_BYTES + samples * 2);
  file.write("RIFF", 0);
  file.writeUInt32LE(file.length - 8, 4);
  file.write("WAVEfmt ", 8);
  file.writeUInt32LE(16, 16);
  file.writeUInt16LE(1, 20);
  file.writeUInt16LE(1, 22);
  file.writeUInt32LE(SAMPLE_RATE, 24);
  file.writeUInt32LE(SAMPLE_RATE * 2, 28);
  file.writeUInt16LE(2, 32);
  file.writeUInt16LE(16, 34);
  file.write("data", 36);
  file.writeUInt32LE(samples * 2, 40);
  for (let n = 0; n < samples; n += 1) {
    file.writeInt16LE(Math.round(8_000 * Math.sin(n / 17)), WAV_HEAD_BYTES + n * 2);
  }
  return file.toString("base64");
}

/** The samples of a wav file, found through its chunks. */
function samplesOf(file) {
  assert.equal(file.toString("latin1", 0, 4), "RIFF");
  assert.equal(file.toString("latin1", 8, 12), "WAVE");
  for (let at = 12; at < file.length; ) {
    const size = file.readUInt32LE(at + 4);
    if (file.toString("latin1", at, at + 4) === "data") return file.subarray(at + 8, at + 8 + size);
    at += 8 + size + (size % 2);
  }
  assert.fail("the wav file has no data");
}

const spoken = (format) => ({
  model: AUDIO_MODEL,
  modalities: ["text", "audio"],
  audio: { voice: "alloy", format },
  messages: user("Say hello."),
});

test("a clip is counted by its length", async () => {
  const client = await gateway.newClient();
  for (const [milliseconds, tokens] of [[1_704, 17], [135, 1], [4_488, 44]]) {
    const clip = { type: "input_audio", input_audio: { data: aWav(milliseconds), format: "wav" } };
    const content = [{ type: "text", text: "What is said here?" }, clip];
    const options = { model: AUDIO_MODEL, messages: [{ role: "user", content }] };
    const completion = await client.chat.completions.create(options);
    assert.ok(completion.choices[0].message.content);
    assert.equal(completion.usage.prompt_tokens_details.audio_tokens, tokens);
  }
});

test("a spoken answer plays as long as it costs", async () => {
  const client = await gateway.newClient();
  const completion = await client.chat.completions.create(spoken("wav"));
  const { audio } = completion.choices[0].message;
  assert.ok(audio.transcript);
  const { audio_tokens } = completion.usage.completion_tokens_details;
  assert.ok(audio_tokens > 0);
  assert.equal(samplesOf(Buffer.from(audio.data, "base64")).length, audio_tokens * BYTES_PER_OUTPUT_TOKEN);
});

test("a streamed answer plays as long as it costs", async () => {
  const client = await gateway.newClient();
  const options = { ...spoken("pcm16"), stream: true, stream_options: { include_usage: true } };
  const chunks = await collect(await client.chat.completions.create(options));
  const pieces = chunks.flatMap((chunk) => chunk.choices ?? []).map((choice) => choice.delta.audio ?? {});
  const sound = Buffer.concat(pieces.map((piece) => Buffer.from(piece.data ?? "", "base64")));
  const usages = chunks.map((chunk) => chunk.usage).filter((usage) => usage != null);
  assert.equal(usages.length, 1);
  assert.equal(sound.length, usages[0].completion_tokens_details.audio_tokens * BYTES_PER_OUTPUT_TOKEN);
  assert.ok(pieces.map((piece) => piece.transcript ?? "").join(""));
});
