"""A running `tollgate demo`, keys on it, and clients of the official SDK.

`scripts/test` starts the gateways and sets TOLLGATE_DEMO and TOLLGATE_DEMO_UNPRICED to what `tollgate demo --json` printed;
the second one forwards models without a price, by whose names the look-alike behind it is asked for faults.
"""

import json
import os
import uuid
from dataclasses import dataclass

import pytest
from openai import OpenAI

TEXT_MODEL = "gpt-4o-mini"
AUDIO_MODEL = "gpt-4o-mini-audio-preview"


@dataclass(frozen=True)
class Key:
    project_id: str
    id: str
    value: str


class Gateway:
    """One running gateway: its addresses, its admin client, and new keys on it."""

    def __init__(self, ready: dict[str, str]):
        self.base_url = ready["base_url"]
        self.admin_url = ready["admin_url"]
        self.admin_key = ready["admin_key"]
        self.admin = OpenAI(
            api_key="not used here", admin_api_key=self.admin_key, base_url=f"{self.admin_url}/v1", max_retries=0
        )

    def key(self, tier: str = "tier5", **limits: int) -> Key:
        """A key of a project of its own, so that tests neither share limits nor bills."""
        projects = self.admin.admin.organization.projects
        project = projects.create(name=f"sdk tests {uuid.uuid4()}", extra_body={"tier": tier})
        body = {"limits": limits} if limits else {}
        account = projects.service_accounts.create(project.id, name="sdk tests", extra_body=body)
        return Key(project.id, account.api_key.id, account.api_key.value)

    def client(self, key: Key | None = None, **options) -> OpenAI:
        """A client that does not retry unless asked to: a failure is to be seen."""
        value = (key or self.key()).value
        return OpenAI(api_key=value, base_url=self.base_url, **{"max_retries": 0, "timeout": 30, **options})


def gateway_from(variable: str) -> Gateway:
    ready = os.environ.get(variable)
    if not ready:
        pytest.exit(f"{variable} is not set: run these tests with scripts/test", returncode=2)
    return Gateway(json.loads(ready))


@pytest.fixture(scope="session")
def gateway() -> Gateway:
    return gateway_from("TOLLGATE_DEMO")


@pytest.fixture(scope="session")
def unpriced_gateway() -> Gateway:
    return gateway_from("TOLLGATE_DEMO_UNPRICED")


@pytest.fixture
def client(gateway: Gateway) -> OpenAI:
    return gateway.client()


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]
