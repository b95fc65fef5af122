// A running `tollgate demo`, keys on it, and clients of the official SDK.
//
// `scripts/test` starts the gateways and sets TOLLGATE_DEMO and TOLLGATE_DEMO_UNPRICED to what `tollgate demo --json`
// printed; the second one forwards models without a price, by whose names the look-alike behind it is asked for faults.

import { randomUUID } from "node:crypto";

import OpenAI from "openai";

export const TEXT_MODEL = "gpt-4o-mini";
export const AUDIO_MODEL = "gpt-4o-mini-audio-preview";

export const user = (text) => [{ role: "user", content: text }];

class Gateway {
  constructor(ready) {
    this.baseURL = ready.base_url;
    this.adminURL = ready.admin_url;
    this.adminKey = ready.admin_key;
  }

  /** The SDK's own client of the organization API. */
  get admin() {
    const options = { apiKey: "not used here", adminAPIKey: this.adminKey, baseURL: `${this.adminURL}/v1`, maxRetries: 0 };
    return new OpenAI(options).admin.organization;
  }

  /** A key of a project of its own, so that tests neither share limits nor bills. */
  async key({ tier = "tier5", limits = {} } = {}) {
    const project = await this.admin.projects.create({ name: `sdk tests ${randomUUID()}`, tier });
    const account = await this.admin.projects.serviceAccounts.create(project.id, { name: "sdk tests", limits });
    return { projectId: project.id, id: account.api_key.id, value: account.api_key.value };
  }

  /** A client that does not retry unless asked to: a failure is to be seen. */
  client(key, options = {}) {
    return new OpenAI({ apiKey: key.value, baseURL: this.baseURL, maxRetries: 0, timeout: 30_000, ...options });
  }

  async newClient(options = {}) {
    return this.client(await this.key(), options);
  }
}

function gatewayFrom(variable) {
  const ready = process.env[variable];
  if (!ready) throw new Error(`${variable} is not set: run these tests with scripts/test`);
  return new Gateway(JSON.parse(ready));
}

export const gateway = gatewayFrom("TOLLGATE_DEMO");
export const unpricedGateway = gatewayFrom("TOLLGATE_DEMO_UNPRICED");

/** All items of an async iterable. */
export async function collect(iterable) {
  const items = [];
  for await (const item of iterable) items.push(item);
  return items;
}
