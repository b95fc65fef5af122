// The SDK's admin client manages the gateway: projects, service accounts, keys, limits, the audit log, page by page.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";

import OpenAI from "openai";

import { TEXT_MODEL, collect, gateway, user } from "./gateway.mjs";

const PAGE = 2;
const now = () => Math.floor(Date.now() / 1_000);
const ids = async (list) => (await collect(list)).map(({ id }) => id);
const results = (page) => page.data.flatMap((bucket) => bucket.results);
const adminWith = (key) => {
  const options = { apiKey: "not used here", adminAPIKey: key, baseURL: `${gateway.adminURL}/v1`, maxRetries: 0 };
  return new OpenAI(options).admin.organization;
};

const newProject = () => gateway.admin.projects.create({ name: `admin tests ${randomUUID()}` });

test("projects are made, listed, changed and archived", async () => {
  const { projects } = gateway.admin;
  const made = [];
  for (const number of [0, 1, 2]) made.push((await projects.create({ name: `page ${number}` })).id);
  // Oldest first: those just made are on the last of many pages.
  const listed = await ids(projects.list({ limit: 5 }));
  assert.ok(made.every((id) => listed.includes(id)));
  assert.equal(new Set(listed).size, listed.length);

  assert.equal((await projects.update(made[0], { name: "renamed" })).name, "renamed");
  assert.equal((await projects.retrieve(made[0])).name, "renamed");
  assert.equal((await projects.archive(made[0])).status, "archived");
  assert.ok(!(await ids(projects.list({ limit: 100 }))).includes(made[0]));
  assert.ok((await ids(projects.list({ limit: 100, include_archived: true }))).includes(made[0]));
  await assert.rejects(projects.retrieve("proj_nothing"), OpenAI.NotFoundError);
});

test("service accounts come page by page", async () => {
  const { serviceAccounts } = gateway.admin.projects;
  const { id: project_id } = await newProject();
  const made = [];
  for (let number = 0; number <= 2 * PAGE; number += 1) {
    made.push((await serviceAccounts.create(project_id, { name: `worker ${number}` })).id);
  }
  const page = await serviceAccounts.list(project_id, { limit: PAGE });
  assert.deepEqual(page.data.map(({ id }) => id), made.slice(0, PAGE));
  assert.ok(page.hasNextPage());
  assert.deepEqual(await ids(page), made);

  assert.equal((await serviceAccounts.update(made[0], { project_id, name: "renamed" })).name, "renamed");
  assert.ok((await serviceAccounts.delete(made[0], { project_id })).deleted);
  assert.deepEqual(await ids(serviceAccounts.list(project_id, { limit: PAGE })), made.slice(1));
});

test("a key made here calls, is seen in usage and costs, and ends", async () => {
  const { apiKeys, serviceAccounts } = gateway.admin.projects;
  const { id: project_id } = await newProject();
  const since = now() - 60;
  const account = await serviceAccounts.create(project_id, { name: "caller" });
  const second = await serviceAccounts.apiKeys.create(account.id, { project_id, name: "second" });
  const client = gateway.client(second);
  const { usage } = await client.chat.completions.create({ model: TEXT_MODEL, messages: user("Say hello.") });

  const query = { start_time: since, project_ids: [project_id] };
  let rows = [];
  for (let attempt = 0; attempt < 200 && rows.length === 0; attempt += 1) {
    if (attempt > 0) await sleep(100);
    rows = results(await gateway.admin.usage.completions({ ...query, group_by: ["api_key_id"] }));
  }
  const seen = rows.map((row) => [row.api_key_id, row.num_model_requests, row.input_tokens, row.output_tokens]);
  assert.deepEqual(seen, [[second.id, 1, usage.prompt_tokens, usage.completion_tokens]]);
  const lines = results(await gateway.admin.usage.costs({ ...query, group_by: ["line_item"] }));
  assert.deepEqual(lines.map(({ line_item }) => line_item.split(", ")[1]).sort(), ["input", "output"]);

  assert.deepEqual((await ids(apiKeys.list(project_id, { limit: 1 }))).sort(), [account.api_key.id, second.id].sort());
  assert.ok((await apiKeys.retrieve(second.id, { project_id })).last_used_at >= since);
  assert.ok((await apiKeys.delete(second.id, { project_id })).deleted);
  assert.deepEqual(await ids(apiKeys.list(project_id)), [account.api_key.id]);
  await assert.rejects(client.models.list(), OpenAI.AuthenticationError);
});

test("usage comes page by page", async () => {
  const { id } = await newProject();
  const start_time = 1_700_006_400;
  const query = { start_time, end_time: start_time + 5 * 86_400, limit: PAGE, project_ids: [id] };
  const starts = [];
  for (let page; page !== null; ) {
    const answer = await gateway.admin.usage.completions({ ...query, ...(page && { page }) });
    starts.push(...answer.data.map((bucket) => bucket.start_time));
    page = answer.has_more ? answer.next_page : null;
  }
  assert.equal(starts[0], start_time);
  assert.ok(starts.length >= 5 && starts.every((start, at) => at === 0 || start > starts[at - 1]), `${starts}`);
});

test("limits are read and set", async () => {
  const { modelPermissions, rateLimits, serviceAccounts, spendLimit } = gateway.admin.projects;
  const { id: project_id } = await newProject();
  const listed = await collect(rateLimits.listRateLimits(project_id, { limit: PAGE }));
  assert.ok(listed.length > 2 * PAGE);
  const limit = listed.find(({ model }) => model === TEXT_MODEL);
  const changed = await rateLimits.updateRateLimit(limit.id, { project_id, max_requests_per_1_minute: 7 });
  assert.equal(changed.max_requests_per_1_minute, 7);
  assert.equal(changed.max_tokens_per_1_minute, limit.max_tokens_per_1_minute);

  const account = await serviceAccounts.create(project_id, { name: "limited" });
  const say = () =>
    gateway.client(account.api_key).chat.completions.create({ model: TEXT_MODEL, messages: user("Hi.") });
  await say();
  await modelPermissions.update(project_id, { mode: "deny_list", model_ids: [TEXT_MODEL] });
  await assert.rejects(say(), OpenAI.PermissionDeniedError);
  assert.ok((await modelPermissions.delete(project_id)).deleted);

  const spend = { currency: "USD", interval: "month", threshold_amount: 500 };
  assert.equal((await spendLimit.update(project_id, spend)).threshold_amount, 500);
  assert.equal((await spendLimit.retrieve(project_id)).enforcement.status, "enforcing");
  assert.ok((await spendLimit.delete(project_id)).deleted);
});

test("admin keys open the admin side until they are deleted", async () => {
  const { adminAPIKeys } = gateway.admin;
  const made = [];
  for (const name of ["second", "third"]) made.push(await adminAPIKeys.create({ name, expires_in_seconds: 600 }));
  const listed = await ids(adminAPIKeys.list({ limit: 1 }));
  assert.ok(made.every(({ id }) => listed.includes(id)));
  assert.equal((await adminAPIKeys.retrieve(made[0].id)).name, "second");
  const { projects } = adminWith(made[0].value);
  await projects.list({ limit: 1 });
  for (const { id } of made) assert.ok((await adminAPIKeys.delete(id)).deleted);
  await assert.rejects(projects.list({ limit: 1 }), OpenAI.AuthenticationError);
});

test("the audit log tells who changed what", async () => {
  const { auditLogs, projects } = gateway.admin;
  const { id } = await newProject();
  await projects.update(id, { name: "renamed" });
  await projects.serviceAccounts.create(id, { name: "audited" });
  await projects.archive(id);
  const rows = await collect(auditLogs.list({ project_ids: [id], limit: PAGE }));
  const types = rows.map(({ type }) => type).filter((type) => type !== "api_key.created");
  assert.deepEqual(types, ["project.archived", "service_account.created", "project.updated", "project.created"]);
  const renamed = rows.find(({ type }) => type === "project.updated");
  assert.equal(renamed["project.updated"].changes_requested.title, "renamed");
});

test("the client of a team is shut out", async () => {
  const { value } = await gateway.key();
  await assert.rejects(adminWith(value).projects.list(), OpenAI.PermissionDeniedError);
});
