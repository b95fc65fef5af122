"""The SDK's admin client manages the gateway: projects, service accounts, keys, limits, the audit log, page by page."""

import time
import uuid

import pytest
from conftest import TEXT_MODEL, Gateway, Key, user
from openai import AuthenticationError, NotFoundError, OpenAI, PermissionDeniedError
from test_metering import reported, results

PAGE = 2


@pytest.fixture
def organization(gateway: Gateway):
    return gateway.admin.admin.organization


@pytest.fixture
def project(organization):
    return organization.projects.create(name=f"admin tests {uuid.uuid4()}")


def test_projects_are_made_listed_changed_and_archived(organization):
    projects = organization.projects
    made = [projects.create(name=f"page {number}") for number in range(3)]
    ids = {project.id for project in made}
    # Oldest first: those just made are on the last of many pages.
    listed = [project.id for project in projects.list(limit=5)]
    assert ids <= set(listed) and len(listed) == len(set(listed))

    first = made[0].id
    assert projects.update(first, name="renamed").name == "renamed"
    assert projects.retrieve(first).name == "renamed"
    assert projects.archive(first).status == "archived"
    assert first not in {project.id for project in projects.list(limit=100)}
    assert first in {project.id for project in projects.list(limit=100, include_archived=True)}
    with pytest.raises(NotFoundError):
        projects.retrieve("proj_nothing")


def test_service_accounts_come_page_by_page(organization, project):
    accounts = organization.projects.service_accounts
    made = [accounts.create(project.id, name=f"worker {number}").id for number in range(2 * PAGE + 1)]
    page = accounts.list(project.id, limit=PAGE)
    assert [account.id for account in page.data] == made[:PAGE] and page.has_next_page()
    assert [account.id for account in page] == made

    assert accounts.update(made[0], project_id=project.id, name="renamed").name == "renamed"
    assert accounts.delete(made[0], project_id=project.id).deleted
    assert [account.id for account in accounts.list(project.id, limit=PAGE)] == made[1:]


def test_a_key_made_here_calls_is_seen_in_usage_and_costs_and_ends(gateway, organization, project):
    since = int(time.time()) - 60
    account = organization.projects.service_accounts.create(project.id, name="caller")
    second = organization.projects.service_accounts.api_keys.create(account.id, project_id=project.id, name="second")
    key = Key(project.id, second.id, second.value)
    answer = gateway.client(key).chat.completions.create(model=TEXT_MODEL, messages=user("Say hello."))

    [row] = reported(gateway, since, key, 1)
    assert (row.input_tokens, row.output_tokens) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    usage, asked = organization.usage, {"start_time": since, "project_ids": [project.id]}
    [by_key] = results(usage.completions(**asked, group_by=["api_key_id"]))
    assert (by_key.api_key_id, by_key.num_model_requests) == (second.id, 1)
    lines = results(usage.costs(**asked, group_by=["line_item"]))
    assert {line.line_item.split(", ")[1] for line in lines} == {"input", "output"}

    keys = organization.projects.api_keys
    assert {it.id for it in keys.list(project.id, limit=1)} == {account.api_key.id, second.id}
    assert keys.retrieve(second.id, project_id=project.id).last_used_at >= since
    ends_at = keys.update(second.id, project_id=project.id, expires_in_seconds=600).expires_at
    assert since + 600 < ends_at <= time.time() + 600
    assert keys.delete(second.id, project_id=project.id).deleted
    assert [it.id for it in keys.list(project.id)] == [account.api_key.id]
    with pytest.raises(AuthenticationError):
        gateway.client(key).models.list()


def test_usage_comes_page_by_page(organization, project):
    start, day = 1_700_006_400, 86_400
    starts, page = [], None
    while True:
        more = {"page": page} if page else {}
        answer = organization.usage.completions(
            start_time=start, end_time=start + 5 * day, limit=PAGE, project_ids=[project.id], **more
        )
        starts += [bucket.start_time for bucket in answer.data]
        page = answer.next_page
        if not answer.has_more:
            break
    # Days begin at midnight, and this report does not.
    assert starts[0] == start and starts == sorted(set(starts)) and len(starts) >= 5


def test_limits_are_read_and_set(gateway, organization, project):
    limits = organization.projects.rate_limits
    listed = list(limits.list_rate_limits(project.id, limit=PAGE))
    assert len(listed) > 2 * PAGE
    limit = next(limit for limit in listed if limit.model == TEXT_MODEL)
    changed = limits.update_rate_limit(limit.id, project_id=project.id, max_requests_per_1_minute=7)
    assert (changed.max_requests_per_1_minute, changed.max_tokens_per_1_minute) == (7, limit.max_tokens_per_1_minute)
    account = organization.projects.service_accounts.create(project.id, name="limited")
    client = gateway.client(Key(project.id, account.api_key.id, account.api_key.value))
    answer = client.chat.completions.with_raw_response.create(model=TEXT_MODEL, messages=user("Hi."))
    assert answer.headers["x-ratelimit-limit-requests"] in ("7", str(limit.max_requests_per_1_day))

    permissions = organization.projects.model_permissions
    assert permissions.update(project.id, mode="deny_list", model_ids=[TEXT_MODEL]).mode == "deny_list"
    with pytest.raises(PermissionDeniedError):
        client.chat.completions.create(model=TEXT_MODEL, messages=user("Hi."))
    assert permissions.delete(project.id).deleted

    spend = organization.projects.spend_limit
    assert spend.update(project.id, currency="USD", interval="month", threshold_amount=500).threshold_amount == 500
    assert spend.retrieve(project.id).enforcement.status == "enforcing"
    assert spend.delete(project.id).deleted


def test_admin_keys_open_the_admin_side_until_they_are_deleted(gateway, organization):
    keys = organization.admin_api_keys
    made = [keys.create(name=f"second {number}", expires_in_seconds=600) for number in range(PAGE)]
    assert {key.id for key in made} <= {key.id for key in keys.list(limit=1)}
    assert keys.retrieve(made[0].id).name == "second 0"
    base_url = f"{gateway.admin_url}/v1"
    client = OpenAI(api_key="not used here", admin_api_key=made[0].value, base_url=base_url, max_retries=0)
    assert client.admin.organization.projects.list(limit=1).data
    for key in made:
        assert keys.delete(key.id).deleted
    with pytest.raises(AuthenticationError):
        client.admin.organization.projects.list(limit=1)


def test_the_audit_log_tells_who_changed_what(organization, project):
    organization.projects.update(project.id, name="renamed")
    organization.projects.service_accounts.create(project.id, name="audited")
    organization.projects.archive(project.id)
    rows = list(organization.audit_logs.list(project_ids=[project.id], limit=PAGE))
    expected = ["project.archived", "service_account.created", "project.updated", "project.created"]
    assert [row.type for row in rows if row.type != "api_key.created"] == expected
    assert {row.actor.api_key.type for row in rows} == {"user"}
    renamed = next(row for row in rows if row.type == "project.updated")
    assert renamed.project_updated.changes_requested.title == "renamed"


def test_the_client_of_a_team_is_shut_out(gateway):
    key = gateway.key()
    client = OpenAI(
        api_key="not used here", admin_api_key=key.value, base_url=f"{gateway.admin_url}/v1", max_retries=0
    )
    with pytest.raises(PermissionDeniedError):
        client.admin.organization.projects.list()
