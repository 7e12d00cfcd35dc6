// The alphabet of the crash enumeration: one action of each kind, placed where they meet each other (shared, unshared and
// missing chunks, a store that ends within a chunk).

import { type Action, Client } from './client.js'
import type { Base, CheckOptions } from './crash-check.js'
import { Oracle } from './oracle.js'
import { SeededRandom } from './random.js'
import { Scheduler } from './sim-clock.js'
import { SimNode } from './sim-node.js'

export const chunkBytes = 4096
/** Five chunks and three quarters. */
const volumeBytes = 5 * chunkBytes + 3072

/** What every workload starts from. vol0: chunks 0 and 1 shared with vol0@s, chunk 2 its own, chunk 3 the snapshot's only, chunk 4 a hole. */
export const setup: readonly Action[] = [
  { kind: 'perform', request: { kind: 'volume.create', name: 'vol0', sizeBytes: volumeBytes } },
  { kind: 'perform', request: { kind: 'volume.create', name: 'vol1', sizeBytes: 4 * chunkBytes } },
  { kind: 'write', store: 'vol0', offset: 0, lengthBytes: 2 * chunkBytes },
  { kind: 'write', store: 'vol0', offset: 3 * chunkBytes, lengthBytes: chunkBytes },
  { kind: 'write', store: 'vol0', offset: 5 * chunkBytes, lengthBytes: 3072 },
  { kind: 'write', store: 'vol1', offset: 1024, lengthBytes: chunkBytes },
  {
    kind: 'perform',
    request: { kind: 'snapshot.create', stores: ['vol0'], name: 's' },
  },
  { kind: 'write', store: 'vol0', offset: 2 * chunkBytes, lengthBytes: chunkBytes },
  { kind: 'zero', store: 'vol0', offset: 3 * chunkBytes, lengthBytes: chunkBytes },
  { kind: 'flush', store: 'vol0' },
  { kind: 'flush', store: 'vol1' },
]

/** More for a base whose data file ends within a sector, in a chunk of vol1. */
const oddEnd: readonly Action[] = [
  { kind: 'write', store: 'vol1', offset: 3 * chunkBytes, lengthBytes: 300 },
  { kind: 'flush', store: 'vol1' },
]

/** Every kind of action, by a short name. */
export const alphabet: Readonly<Record<string, Action>> = {
  write: { kind: 'write', store: 'vol0', offset: 2 * chunkBytes + 512, lengthBytes: 1024 },
  'write hole': { kind: 'write', store: 'vol0', offset: 4 * chunkBytes + 1024, lengthBytes: 512 },
  'write two chunks': {
    kind: 'write',
    store: 'vol0',
    offset: 2 * chunkBytes - 1024,
    lengthBytes: 2048,
  },
  'write unaligned': { kind: 'write', store: 'vol0', offset: 700, lengthBytes: 555 },
  'write FUA': { kind: 'write', store: 'vol0', offset: 0, lengthBytes: 1024, fua: true },
  'write snapshot': { kind: 'write', store: 'vol0@s', offset: 512, lengthBytes: 1024 },
  trim: { kind: 'zero', store: 'vol0', offset: chunkBytes + 512, lengthBytes: 2 * chunkBytes },
  zeroes: {
    kind: 'zero',
    store: 'vol0',
    offset: 2 * chunkBytes + 100,
    lengthBytes: 1000,
    keep: true,
  },
  flush: { kind: 'flush', store: 'vol0' },
  snapshot: {
    kind: 'perform',
    request: { kind: 'snapshot.create', stores: ['vol0'], name: 't' },
  },
  'snapshot all': {
    kind: 'perform',
    request: { kind: 'snapshot.create', stores: 'all', name: 'u' },
  },
  restore: { kind: 'perform', request: { kind: 'snapshot.restore', store: 'vol0@s' } },
  'restore range': {
    kind: 'perform',
    request: {
      kind: 'snapshot.restore',
      store: 'vol0@s',
      range: range(chunkBytes - 300, 3 * chunkBytes),
    },
  },
  refresh: { kind: 'perform', request: { kind: 'snapshot.refresh', store: 'vol0@s' } },
  sync: { kind: 'perform', request: { kind: 'sync', source: 'vol0', target: 'vol1' } },
  'sync range': {
    kind: 'perform',
    request: { kind: 'sync', source: 'vol1', target: 'vol0', range: range(512, 2 * chunkBytes) },
  },
  'delete snapshot': { kind: 'perform', request: { kind: 'snapshot.delete', store: 'vol0@s' } },
  'delete volume': { kind: 'perform', request: { kind: 'volume.delete', name: 'vol1' } },
  grow: {
    kind: 'perform',
    request: { kind: 'volume.resize', name: 'vol0', sizeBytes: 7 * chunkBytes },
  },
  shrink: {
    kind: 'perform',
    request: { kind: 'volume.resize', name: 'vol0', sizeBytes: 2 * chunkBytes + 1024 },
  },
  'write last chunk': {
    kind: 'write',
    store: 'vol1',
    offset: 3 * chunkBytes,
    lengthBytes: 1024,
  },
  checkpoint: { kind: 'checkpoint' },
  batch: {
    kind: 'perform',
    request: {
      kind: 'batch',
      operations: [
        { kind: 'snapshot.create', stores: ['vol1'], name: 'b' },
        { kind: 'snapshot.restore', store: 'vol0@s', range: range(0, chunkBytes) },
      ],
    },
  },
}

/** For the longest workloads: without what another one stands for. */
export const shortAlphabet: readonly string[] = Object.keys(alphabet).filter(
  (name) => name !== 'snapshot all' && name !== 'write last chunk',
)

/** Every sequence of `length` actions; `names` bounds the alphabet. */
export function* sequences(
  length: number,
  names: readonly string[] = Object.keys(alphabet),
): Generator<readonly string[]> {
  if (length === 0) {
    yield []
    return
  }
  for (const rest of sequences(length - 1, names)) {
    for (const name of names) yield [...rest, name]
  }
}

export function actionsOf(names: readonly string[]): readonly Action[] {
  return names.map((name) => {
    const action = alphabet[name]
    if (!action) throw new Error(`no action ${name}`)
    return action
  })
}

/** The base that all workloads share, made by a run of `setup` and a clean stop. */
export async function makeBase(
  options: CheckOptions & { readonly hasOddEnd?: boolean },
  journalBytes: number,
): Promise<Base> {
  const { subject, seed, disk } = options
  const random = new SeededRandom(seed).fork('base')
  const scheduler = new Scheduler()
  const common = { subject, scheduler, random, ...(disk ? { disk } : {}) }
  const medium = await SimNode.init(common, { chunkBytes, journalBytes })
  const node = await SimNode.start({ ...common, medium })
  const oracle = new Oracle()
  const client = new Client(node.engine, oracle, random)
  const actions = options.hasOddEnd ? [...setup, ...oddEnd] : setup
  for (const action of actions) await node.run(client.act(action))
  const images = await node.readStores()
  const catalog = oracle.judge(images, 'live')
  if (typeof catalog === 'string') throw new Error(`the base is wrong: ${catalog}`)
  await node.run(node.engine.close())
  node.crash()
  oracle.rebase(images, catalog)
  return { medium: node.disk.medium.afterKill(), oracle }
}

function range(offset: number, lengthBytes: number) {
  return { offset: offset as never, lengthBytes }
}
