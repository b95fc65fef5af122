"""Webhooks as their receiver sees them: the SDK says whether they are what they claim to be."""

import json
import os
import queue
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from conftest import AUDIO_MODEL, Gateway, user
from openai import InvalidWebhookSignatureError, OpenAI

MOST_REQUESTS = 200


@pytest.fixture
def events():
    """What a receiver gets, at the address that the gateway was started with."""
    received: queue.Queue = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            received.put((dict(self.headers), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", int(os.environ["TOLLGATE_DEMO_WEBHOOK_PORT"])), Receiver)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield received
    server.shutdown()
    serving.join()
    server.server_close()


def first_event(gateway: Gateway, events: queue.Queue) -> tuple[dict, bytes]:
    """Spends until half of a cent is used."""
    key = gateway.key()
    body = {"interval": "day", "threshold_amount": 1, "currency": "USD"}
    limit = f"/organization/projects/{key.project_id}/spend_limit"
    gateway.admin.post(limit, body=body, cast_to=object, options={"headers": gateway_auth(gateway)})
    client = gateway.client(key)
    for _ in range(MOST_REQUESTS):
        client.chat.completions.create(
            model=AUDIO_MODEL,
            messages=user("Say hello."),
            modalities=["text", "audio"],
            audio={"voice": "alloy", "format": "wav"},
        )
        try:
            return events.get(timeout=0.05)
        except queue.Empty:
            pass
    return events.get(timeout=5)


def gateway_auth(gateway: Gateway) -> dict[str, str]:
    return {"Authorization": f"Bearer {gateway.admin_key}"}


def test_the_sdk_verifies_what_is_sent_when_a_budget_is_used(gateway, events):
    headers, body = first_event(gateway, events)
    receiver, secret = OpenAI(api_key="not used here"), os.environ["TOLLGATE_DEMO_WEBHOOK_SECRET"]
    event = receiver.webhooks.unwrap(body, headers, secret=secret)
    assert (event.object, event.type) == ("event", "spend_limit.mark_passed")
    assert json.loads(body)["data"]["percent"] == 50
    for forged in [body.replace(b"50", b"80"), body + b" "]:
        with pytest.raises(InvalidWebhookSignatureError):
            receiver.webhooks.unwrap(forged, headers, secret=secret)
