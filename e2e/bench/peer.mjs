// @elastic/elasticsearch: its helpers.bulk, as its documentation has it, 1 MiB a bulk and 4 in flight.
//
// What is measured is the client alone: the input is in memory, and documents are text, so that they are neither read
// nor written anew. One line of JSON says what came of it.

import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { Client } from '@elastic/elasticsearch'

const { values, positionals } = parseArgs({ options: { node: { type: 'string' } }, allowPositionals: true })
const lines = readFileSync(positionals[0], 'utf8').split('\n')
const operations = []
for (let at = 0; at < lines.length && lines[at] !== ''; at += 1) {
  const action = JSON.parse(lines[at])
  if (action.delete) {
    operations.push({ action, document: '{}' })
  } else {
    at += 1
    operations.push({ action, document: lines[at] })
  }
}

const client = new Client({ node: values.node })
await client.info()
global.gc?.()
const memory = process.memoryUsage().rss
const cpu = process.cpuUsage()
const begin = process.hrtime.bigint()
let position = 0
let dropped = 0
const result = await client.helpers.bulk({
  datasource: operations.map((operation) => operation.document),
  flushBytes: 1 << 20,
  concurrency: 4,
  retries: 10,
  onDocument: () => operations[position++].action,
  onDrop: ({ status }) => { if (status !== 409 && status !== 404) dropped += 1 }
})
const used = process.cpuUsage(cpu)
console.log(JSON.stringify({
  documents: operations.length,
  settled: operations.length - dropped,
  seconds: Number(process.hrtime.bigint() - begin) / 1e9,
  cpu: (used.user + used.system) / 1e6,
  memory: process.resourceUsage().maxRSS * 1024 - memory,
  retried: result.retry
}))
process.exit(0)
