// The states that workloads of two nodes start from: in step; the second one away while operations and writes went on without it; the second one blank.
import assert from 'node:assert/strict'
import type { Action } from '../client.js'
import { SeededRandom } from '../random.js'
import { Scheduler } from '../sim-clock.js'
import { actionsOf, chunkBytes, setup } from '../workloads.js'
import { PairNode } from './pair-node.js'
import type { PairSubject } from './pair-subject.js'
import { type PairBase, PairWorld } from './pair-world.js'
import { SimNetwork } from './sim-network.js'

/** `returning`: as `away`, and the workload is asked for in the middle of the resync. */
export const starts = ['in step', 'away', 'returning', 'blank'] as const
export type Start = (typeof starts)[number]

export type PairBases = Readonly<Record<Start, PairBase>>

const journalBytes = 256 * 1024
/** More entries than any base is made of. */
const indexesPerBase = 1000

/** While the second node is away: dirty blocks, operations that move them, and a snapshot of each state. */
const whileAway: readonly Action[] = [
  ...actionsOf(['write', 'write snapshot', 'snapshot', 'write two chunks', 'trim']),
  ...actionsOf(['restore range', 'write unaligned', 'sync range', 'grow']),
]

export async function makePairBases(subject: PairSubject, seed: number): Promise<PairBases> {
  const empty: PairBase = {
    media: [await blank(subject, seed, 'a'), await blank(subject, seed, 'b')],
    eras: [],
    firstIndex: 1,
  }
  const inStep = await after(subject, seed, empty, setup, true)
  const away = await after(subject, seed, inStep, whileAway, false)
  const alone = await after(subject, seed, empty, setup, false)
  return { 'in step': inStep, away, returning: away, blank: alone }
}

async function blank(subject: PairSubject, seed: number, name: 'a' | 'b') {
  const scheduler = new Scheduler()
  const random = new SeededRandom(seed).fork(`base ${name}`)
  const node = await PairNode.init(
    {
      ...{ subject, name, scheduler, random },
      role: name === 'a' ? 'primary' : 'secondary',
      peerName: name === 'a' ? 'b' : 'a',
      network: new SimNetwork({
        scheduler,
        random,
        shape: { capacityBytes: 1, pieceBytesMax: 1, delayShare: 0, delayMsMax: 0 },
      }),
      mutants: new Set(),
      disk: {},
      replication: {},
      onCall: () => {},
    },
    { chunkBytes, journalBytes },
  )
  return node.mediumNow(random)
}

/** What both media hold after `actions` and a clean stop; the second node takes part or not. */
async function after(
  subject: PairSubject,
  seed: number,
  base: PairBase,
  actions: readonly Action[],
  isTogether: boolean,
): Promise<PairBase> {
  // No two lives may draw the same names for their generations.
  const own = new SeededRandom(seed).fork(`base from ${base.firstIndex}`).bits()
  const world = new PairWorld({ subject, seed: own, base })
  const { a, b, scheduler } = world
  world.start(a)
  if (isTogether) await world.heal()
  else {
    await world.until(() => a.engine !== undefined, 'the first node starts')
    await world.welcome()
  }
  for (const action of actions) {
    world.issue(action)
    await world.until(() => world.underWay.size === 0, JSON.stringify(action))
    assert.equal(world.outcomes.at(-1), 'done', `a base is made of what works: ${action.kind}`)
  }
  await world.flushAll()
  if (isTogether) await world.equal()
  assert(a.running)
  const images = await a.running.readStores()
  const catalog = world.oracle.judge(images, 'live')
  if (typeof catalog === 'string') throw new Error(`the base is wrong: ${catalog}`)
  await a.close()
  await scheduler.settle(1000)
  if (isTogether) await b.close()
  const random = world.random.fork('closed')
  const before = isTogether ? [] : base.eras.length > 0 ? base.eras : [emptyEra(world)]
  return {
    media: [a.mediumNow(random), b.mediumNow(random)],
    eras: [...before, { images, catalog }],
    firstIndex: base.firstIndex + indexesPerBase,
  }
}

/** A blank node holds nothing. */
function emptyEra(world: PairWorld): PairBase['eras'][number] {
  const catalog = world.oracle.catalog.clone()
  catalog.stores.clear()
  return { images: [], catalog }
}
