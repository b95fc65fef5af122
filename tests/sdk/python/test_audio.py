"""Audio in and out: its lengths are its tokens, and both are checked with another program's decoder."""

import base64
import io
import math
import struct
import wave

from conftest import AUDIO_MODEL, user

SAMPLE_RATE = 24_000
# A spoken answer costs 20 tokens a second; a clip that is heard costs 10.
OUTPUT_TOKENS_PER_SECOND = 20
INPUT_TOKENS_PER_SECOND = 10
BYTES_PER_OUTPUT_TOKEN = SAMPLE_RATE * 2 // OUTPUT_TOKENS_PER_SECOND


def a_wav(milliseconds: int) -> str:
    """A tone as a wav file in base64."""
    samples = (round(8_000 * math.sin(n / 17)) for n in range(SAMPLE_RATE * milliseconds // 1_000))
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return base64.b64encode(file.getvalue()).decode()


def question(milliseconds: int) -> list[dict]:
    clip = {"type": "input_audio", "input_audio": {"data": a_wav(milliseconds), "format": "wav"}}
    return [{"role": "user", "content": [{"type": "text", "text": "What is said here?"}, clip]}]


def speak(client, **options):
    return client.chat.completions.create(
        model=AUDIO_MODEL,
        modalities=["text", "audio"],
        **{"messages": user("Say hello."), "audio": {"voice": "alloy", "format": "wav"}, **options},
    )


def test_a_clip_is_counted_by_its_length(client):
    for milliseconds, tokens in ((1_704, 17), (135, 1), (4_488, 44)):
        completion = client.chat.completions.create(model=AUDIO_MODEL, messages=question(milliseconds))
        assert completion.choices[0].message.content
        assert completion.usage.prompt_tokens_details.audio_tokens == tokens
        assert completion.usage.completion_tokens_details.audio_tokens == 0


def test_a_spoken_answer_plays_as_long_as_it_costs(client):
    completion = speak(client)
    audio = completion.choices[0].message.audio
    assert audio.id.startswith("audio_")
    assert audio.transcript
    assert audio.expires_at > completion.created
    with wave.open(io.BytesIO(base64.b64decode(audio.data, validate=True))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2)
        frames = file.readframes(file.getnframes())
    details = completion.usage.completion_tokens_details
    assert details.audio_tokens > 0
    assert len(frames) == details.audio_tokens * BYTES_PER_OUTPUT_TOKEN
    assert len(set(frames)) > 1, "silence is no answer"
    assert completion.usage.completion_tokens > details.audio_tokens, "the transcript is counted as text"


def test_a_streamed_answer_plays_as_long_as_it_costs(client):
    stream = speak(
        client,
        audio={"voice": "alloy", "format": "pcm16"},
        stream=True,
        stream_options={"include_usage": True},
    )
    sound, transcript, usage = b"", "", []
    for chunk in stream:
        if chunk.usage is not None:
            usage.append(chunk.usage)
        # Audio streams have chunks without choices.
        for choice in chunk.choices or []:
            if piece := choice.delta.audio:
                sound += base64.b64decode(piece.data or "", validate=True)
                transcript += piece.transcript or ""
    assert len(usage) == 1
    assert len(sound) == usage[0].completion_tokens_details.audio_tokens * BYTES_PER_OUTPUT_TOKEN
    assert transcript


def test_a_streamed_answer_hides_the_usage_nobody_asked_for(client):
    stream = speak(client, audio={"voice": "alloy", "format": "pcm16"}, stream=True)
    chunks = list(stream)
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices != [] for chunk in chunks), "the usage chunk has an empty list of choices"
    assert any(choice.delta.audio for chunk in chunks for choice in chunk.choices or [])


def test_a_replayed_answer_is_heard_again_at_its_own_length(client):
    first = speak(client)
    spoken = first.choices[0].message.audio
    messages = [
        *user("Say hello."),
        {"role": "assistant", "audio": {"id": spoken.id}},
        *question(1_000),
    ]
    second = client.chat.completions.create(model=AUDIO_MODEL, messages=messages)
    expected = first.usage.completion_tokens_details.audio_tokens + INPUT_TOKENS_PER_SECOND
    assert second.usage.prompt_tokens_details.audio_tokens == expected
