// What an application does with @elastic/elasticsearch, over a collection behind a router; see ../README.md.
//
// journey.mjs URL COLLECTION N PREFIX: prints a line of JSON, and exits with 1 and a text when something is not as it
// should be. Effects: writes documents whose ids begin with PREFIX.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { Client, errors } from "@elastic/elasticsearch";

const { version } = JSON.parse(await readFile(new URL("node_modules/@elastic/elasticsearch/package.json", import.meta.url)));
const LARGE = "81384788765712384"; // has an index of its own
const [POISON, LATE, DELETED] = [5, 10, 10];

const [url, collection, number, prefix] = process.argv.slice(2);
const count = Number(number);
const seen = {}; // errors of items
const client = new Client({ node: url, compression: true, maxRetries: 3, retryOnTimeout: true, requestTimeout: 120_000 });

const tenantOf = (n) => (n % 5 === 0 ? LARGE : String(1000 + (n % 199)));
const idOf = (n) => `${prefix}-${n}`;
const document = (n, edited = false) => ({
  guild_id: tenantOf(n),
  content: edited ? `${prefix} number ${n}, edited` : `${prefix} number ${n} said "grüß dich" 🦀\nand left`,
  sent: n,
});

const firsts = new Map(); // of each tenant, the number of its first document
for (let n = 994; n >= 0; n--) firsts.set(tenantOf(n), n);

// What the helper's callback makes an action and a document of. Every second one says whose it is; of the others the
// document does.
const write = (n, version, source, id = idOf(n)) => ({
  action: { index: { _index: collection, _id: id, version, version_type: "external", ...(n % 2 === 0 && { routing: tenantOf(n) }) } },
  source,
});

async function* loaded() {
  const every = Math.floor(count / POISON);
  for (let n = 0; n < count; n++) {
    yield write(n, 2, document(n));
    const k = n / every;
    if (n % every === 0 && k < POISON) yield write(k, 2, { ...document(k), unknown: true }, `${prefix}-unknown-${k}`);
  }
}

function* changes() {
  for (const n of firsts.values()) yield write(n, 3, document(n, true));
  for (let n = count - LATE; n < count; n++) yield write(n, 1, document(n, true));
  for (let n = count - LATE - DELETED; n < count - LATE; n++)
    yield { action: { delete: { _index: collection, _id: idOf(n), routing: tenantOf(n), version: 3, version_type: "external" } } };
}

// Statistics of the helper, and ids that it dropped.
async function bulk(datasource, options) {
  const dropped = [];
  const stats = await client.helpers.bulk({
    datasource,
    concurrency: 4,
    flushBytes: 200_000,
    onDocument: ({ action, source }) => (source ? [action, source] : action),
    onDrop: ({ status, error, operation }) => {
      const what = `${status} ${error.type}`;
      seen[what] = (seen[what] ?? 0) + 1;
      dropped.push(Object.values(operation)[0]._id);
    },
    ...options,
  });
  return [stats, dropped.sort()];
}

async function refused(what, status, type, call) {
  const error = await call().then(() => assert.fail(`${what}: no error`), (error) => error);
  assert(error instanceof errors.ResponseError, `${what}: ${error}`);
  assert.equal(error.statusCode, status, what);
  if (type) assert.equal(error.body.error.type, type, what);
}

async function load() {
  const [stats, dropped] = await bulk(loaded(), {});
  assert.deepEqual([stats.successful, stats.failed, stats.aborted], [count, POISON, false], "documents that were loaded");
  assert.deepEqual(dropped, Array.from({ length: POISON }, (_, k) => `${prefix}-unknown-${k}`), "what the mapping refuses");
}

async function change() {
  const [stats, dropped] = await bulk([...changes()], { refresh: "wait_for" });
  const late = Array.from({ length: LATE }, (_, k) => idOf(count - LATE + k));
  assert.deepEqual([stats.successful, stats.failed], [firsts.size + DELETED, LATE], "changes");
  assert.deepEqual(dropped, late.sort(), "documents that come late");
}

async function counts() {
  const expected = {};
  for (let n = 0; n < count; n++)
    if (n < count - LATE - DELETED || n >= count - LATE) expected[tenantOf(n)] = (expected[tenantOf(n)] ?? 0) + 1;
  for (const tenant of firsts.keys()) {
    const got = await client.count({ index: collection, routing: tenant, query: { match: { content: prefix } } });
    assert.equal(got.count, expected[tenant], `documents of tenant ${tenant}`);
  }
}

async function contents() {
  const edited = new Set(firsts.values());
  const some = new Set(edited);
  for (let n = 0; n < count - LATE - DELETED; n += Math.floor(count / 100)) some.add(n);
  for (const n of some) {
    const got = await client.get({ index: collection, id: idOf(n), routing: tenantOf(n) });
    const version = edited.has(n) ? 3 : 2;
    assert.deepEqual([got._index, got._id, got._version], [collection, idOf(n), version], "a document");
    assert.deepEqual(got._source, document(n, edited.has(n)), "its content");
  }
  const there = { index: collection, id: idOf(0), routing: LARGE };
  assert.equal(await client.exists(there), true, "exists");
  const last = count - LATE - 1;
  const deleted = { index: collection, id: idOf(last), routing: tenantOf(last) };
  assert.equal(await client.exists(deleted), false, "exists, of what was deleted");
  await refused("get, of what was deleted", 404, null, () => client.get(deleted));
  await refused("get, of another's", 404, null, () => client.get({ ...there, routing: tenantOf(1) }));
}

async function searches() {
  const query = { bool: { must: [{ match: { content: prefix } }], filter: [{ range: { sent: { lt: 50 } } }] } };
  const asked = { index: collection, routing: LARGE, query };
  const found = await client.search({
    ...asked, sort: [{ sent: "desc" }], size: 100, aggs: { last: { max: { field: "sent" } } }, track_total_hits: true, pretty: true,
  });
  const numbers = Array.from({ length: 10 }, (_, k) => 45 - 5 * k);
  assert.deepEqual(found.hits.hits.map((hit) => hit._id), numbers.map(idOf), "hits");
  assert.deepEqual(found.hits.hits.map((hit) => hit._source), numbers.map((n) => document(n, n === 0)), "their content");
  assert.deepEqual(found.hits.total, { value: 10, relation: "eq" }, "total");
  assert.equal(found.aggregations.last.value, 45, "aggregation");
  assert.deepEqual(await client.search({ ...asked, filter_path: "hits.total.value" }), { hits: { total: { value: 10 } } }, "filter_path");
  const { responses } = await client.msearch({
    searches: [
      { index: collection, routing: LARGE }, { query, size: 1 },
      { index: collection, routing: tenantOf(1) }, { query },
      { index: "nothing", routing: LARGE }, { query },
    ],
  });
  assert.deepEqual(responses.slice(0, 2).map((one) => one.hits.total.value), [10, 1], "msearch");
  assert.deepEqual([responses[2].status, responses[2].error.type], [404, "index_not_found_exception"], "msearch, of nothing");
  const helper = client.helpers.msearch();
  const { documents } = await helper.search({ index: collection, routing: LARGE }, { query, sort: [{ sent: "asc" }], size: 1 });
  helper.stop();
  assert.deepEqual(documents, [document(0, true)], "the msearch helper");
  await refused("search, of nothing", 404, "index_not_found_exception", () => client.search({ ...asked, index: "nothing" }));
  const script = { script: { script: "true" } };
  await refused("search, with a script", 400, "illegal_argument_exception", () => client.search({ ...asked, query: script }));
}

async function single() {
  const id = `${prefix}-single`;
  const one = { index: collection, id, routing: LARGE, version_type: "external" };
  const created = await client.index({ ...one, version: 5, document: document(5), refresh: "wait_for" });
  assert.equal(created.result, "created", "index");
  const got = await client.get({ index: collection, id, routing: LARGE, _source_includes: "sent", pretty: true });
  assert.deepEqual(got._source, { sent: 5 }, "its content");
  await refused("index, late", 409, "version_conflict_engine_exception", () => client.index({ ...one, version: 4, document: document(5) }));
  assert.equal((await client.delete({ ...one, version: 6, refresh: true })).result, "deleted", "delete");
  assert.equal(await client.exists({ index: collection, id, routing: LARGE }), false, "exists, of the deleted one");
}

const began = performance.now();
try {
  assert.match((await client.info()).version.number, /^[89]\./, "the line of the server");
  await load();
  const seconds = Math.round((performance.now() - began) / 100) / 10;
  await change();
  await counts();
  await contents();
  await searches();
  await single();
  await client.close();
  console.log(JSON.stringify({
    client: "@elastic/elasticsearch", version, documents: count, stored: count - DELETED, seconds, errors: seen,
    operations: { done: count + firsts.size + DELETED + 2, superseded: LATE + 1, refused: POISON },
  }));
} catch (error) {
  console.error(`@elastic/elasticsearch: ${error instanceof assert.AssertionError ? error.message : error.stack}`);
  process.exit(1);
}
