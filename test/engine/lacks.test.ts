// What the peer lacks at this moment, what is kept for it in memory included: the same as when all of that has become a map.
import t from 'tap'
import type { DirtyReport } from '../../src/engine/api.js'
import { EnginePair, type PairedNode, pattern } from '../support/engine-pair.js'
import { failureOf } from '../support/failure.js'
import { SeededRandom } from '../support/random.js'

const volumeBytes = 65536
const names = ['vol0', 'vol1', 'vol0@a', 'vol0@b']

function reportsOf(node: PairedNode): readonly DirtyReport[] {
  const stores = names.filter((name) => node.storeNames.includes(name))
  return stores.flatMap((name) => node.engine.dirty(name, 16))
}

async function dirtyBytesSeen(node: PairedNode, name: string): Promise<number> {
  const store = node.export(name)
  const extents = await store.blockStatus({
    context: 'x-lockstep:dirty',
    offset: 0,
    lengthBytes: store.sizeBytes,
    extentCountMax: 100,
  })
  return extents.reduce((sum, { lengthBytes, flags }) => sum + lengthBytes * flags, 0)
}

/** The same, asked for in pieces that end in the middle of blocks. */
async function dirtyBytesInPieces(node: PairedNode, name: string): Promise<number> {
  const store = node.export(name)
  let sum = 0
  for (let offset = 0; offset < store.sizeBytes; offset += 5 * 512) {
    const lengthBytes = Math.min(5 * 512, store.sizeBytes - offset)
    const query = { offset, lengthBytes, extentCountMax: 100 }
    const extents = await store.blockStatus({ context: 'x-lockstep:dirty', ...query })
    sum += extents.reduce((bytes, { lengthBytes, flags }) => bytes + lengthBytes * flags, 0)
  }
  return sum
}

/** One change, in the order in which clients and operators make them. */
async function change(pair: EnginePair, random: SeededRandom): Promise<void> {
  const node = pair.a
  const has = (name: string): boolean => node.storeNames.includes(name)
  const store = random.pick(names.filter(has))
  const { sizeBytes } = node.export(store)
  const offset = random.below(sizeBytes / 512) * 512
  const lengthBytes = Math.min(sizeBytes - offset, 512 * (1 + random.below(24)))
  const choice = random.below(12)
  if (choice < 6) return node.write(store, offset, pattern(choice, lengthBytes))
  if (choice === 6) {
    const zeroes = { offset, lengthBytes, fua: false, mayUnmap: true, fastOnly: false }
    await pair.run(Promise.resolve(node.export(store).zero(zeroes)))
  } else if (choice === 7) {
    const snapshot = random.pick(['vol0@a', 'vol0@b'])
    if (has(snapshot)) await node.perform({ kind: 'snapshot.delete', store: snapshot })
    else await node.snapshot(snapshot)
  } else if (choice === 8 && has('vol0@a')) {
    await node.perform({ kind: 'snapshot.restore', store: 'vol0@a' })
  } else if (choice === 9) {
    const range = { offset: 8192 as never, lengthBytes: 16384 }
    await node.perform({ kind: 'sync', source: 'vol0', target: 'vol1', range })
  } else if (choice === 10) {
    const size = 4096 * (8 + random.below(20))
    await node.perform({ kind: 'volume.resize', name: 'vol1', sizeBytes: size })
  } else await node.snapshot('vol1@x').catch(() => {})
}

t.test('what is in the outbox is lacking, block by block', async (t) => {
  const pair = await EnginePair.inSync()
  t.equal(pair.a.peer.lacksBytes, 0)
  await pair.part()
  await pair.a.write('vol0', 4096, pattern(1))
  await pair.a.write('vol0', 4096, pattern(2))
  await pair.a.write('vol0', 40_960 + 512, pattern(3, 512))
  t.match(pair.a.engine.dirty('vol0', 16), [
    { dirtyBytes: 8192, picture: [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0] },
  ])
  t.equal(await dirtyBytesSeen(pair.a, 'vol0'), 8192)
  t.equal(pair.a.peer.lacksBytes, 8192)
  t.equal(pair.a.peer.dirtyBytes, 0, 'none of it has left')
  pair.mend()
  await pair.sync()
  t.equal(pair.a.peer.lacksBytes, 0, 'applied there')
  t.equal(await dirtyBytesSeen(pair.a, 'vol0'), 0)
  t.match(pair.a.engine.dirty('vol0', 16), [{ dirtyBytes: 0 }])
  await pair.close()
})

t.test('what is asked in pieces is what is asked at once', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.part()
  const random = new SeededRandom(13)
  for (let count = 12; count > 0; count--) {
    const offset = 512 * random.below(volumeBytes / 512 - 4)
    await pair.a.write('vol0', offset, pattern(count, 512 * (1 + random.below(4))))
    const bytes = await dirtyBytesSeen(pair.a, 'vol0')
    t.equal(await dirtyBytesInPieces(pair.a, 'vol0'), bytes)
    t.match(pair.a.engine.dirty('vol0', 16), [{ dirtyBytes: bytes }])
  }
  await pair.a.close()
  await pair.b.close()
})

t.test('a little looking gives a short answer, and the next one goes on behind it', async (t) => {
  const pair = await EnginePair.inSync()
  const sizeBytes = 2 ** 30
  await pair.a.create('vol1', sizeBytes)
  await pair.sync()
  await pair.part()
  // A page of the dirty map has 128 MiB: blocks in all of them, first in the map, then in the outbox.
  const places = Array.from({ length: 8 }, (_, page) => page * 2 ** 27 + page * 8192)
  for (const place of places) await pair.a.write('vol1', place, pattern(1))
  await pair.a.close()
  await pair.a.start({ isAlone: true })
  await pair.a.write('vol1', 2 ** 29 + 4096, pattern(2))
  for (const mayMove of [false, true]) {
    if (mayMove) await pair.a.snapshot('vol1@a')
    for (const store of mayMove ? ['vol1', 'vol1@a'] : ['vol1']) {
      const found = pair.a.export(store)
      let sum = 0
      let asked = 0
      for (let offset = 0; offset < sizeBytes; asked++) {
        const look = { stepsLeft: 200 }
        const query = { offset, lengthBytes: sizeBytes - offset, extentCountMax: 100, look }
        for (const extent of await found.blockStatus({ context: 'x-lockstep:dirty', ...query })) {
          sum += extent.lengthBytes * extent.flags
          offset += extent.lengthBytes
        }
        t.ok(look.stepsLeft < 200)
      }
      t.equal(sum, 9 * 4096, store)
      t.ok(asked > 1 && asked <= 16, `${asked} answers`)
    }
  }
  await pair.a.close()
  await pair.b.close()
})

t.test('what lacks in memory is what a map says when it is one', async (t) => {
  for (let seed = 1; seed <= 12; seed++) {
    const random = new SeededRandom(seed)
    const pair = await EnginePair.inSync()
    await pair.a.create('vol1', volumeBytes)
    for (let count = random.below(12); count > 0; count--) await change(pair, random)
    await pair.sync()
    await pair.part()
    for (let count = 24; count > 0; count--) await change(pair, random)
    const before = reportsOf(pair.a)
    const { lacksBytes } = pair.a.peer
    for (const { store, dirtyBytes } of before) {
      t.equal(await dirtyBytesSeen(pair.a, store), dirtyBytes, `seed ${seed}, ${store}`)
      t.equal(await dirtyBytesInPieces(pair.a, store), dirtyBytes, `seed ${seed}, ${store}`)
    }
    await pair.a.close()
    await pair.a.start({ isAlone: true })
    t.same(reportsOf(pair.a), before, `seed ${seed}`)
    t.equal(pair.a.peer.lacksBytes, lacksBytes, `seed ${seed}`)
    await pair.a.close()
    await pair.b.close()
  }
})

t.test(
  'of a node that was never met, or is not tracked any more, everything is lacking',
  async (t) => {
    const pair = await EnginePair.make()
    await pair.a.start()
    await pair.a.create('vol0')
    await pair.a.write('vol0', 0, pattern(1))
    await pair.a.snapshot('vol0@a')
    t.match(pair.a.engine.dirty('vol0', 4), [{ dirtyBytes: 4096, picture: [0.25, 0, 0, 0] }])
    t.equal(pair.a.peer.lacksBytes, 4096, 'once, although two stores have it')
    await pair.b.start()
    await pair.sync()
    t.equal(pair.a.peer.lacksBytes, 0)
    await pair.close()
  },
)

t.test('a chunk that many stores share is lacking once, and moved once', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.part()
  for (let at = 0; at < 8; at++) await pair.a.write('vol0', at * 4096, pattern(at + 1))
  for (const name of ['a', 'b', 'c']) await pair.a.snapshot(`vol0@${name}`)
  t.equal(pair.a.peer.lacksBytes, 32_768)
  await pair.a.close()
  await pair.a.start({ isAlone: true })
  t.equal(pair.a.peer.dirtyBytes, 4 * 32_768)
  t.equal(pair.a.peer.lacksBytes, 32_768)
  await pair.a.close()
  await pair.a.start()
  pair.mend()
  t.match(await pair.run(pair.a.engine.connectPeer({ explain: true })), { bytes: 32_768 })
  await pair.sync()
  t.equal(pair.a.peer.lacksBytes, 0)
  await pair.same()
  await pair.close()
})

t.test('a write behind the end of its store is not lacking, and ends nothing', async (t) => {
  const ends = [
    { kind: 'volume.delete', name: 'vol1' },
    { kind: 'volume.resize', name: 'vol1', sizeBytes: 4096 },
  ] as const
  for (const end of ends) {
    const pair = await EnginePair.inSync({ isSlow: true, isNeverNow: true })
    await pair.a.create('vol1', volumeBytes)
    await pair.sync()
    let release = (): void => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    pair.a.hold = ({ kind, name }) => (kind === 'write' && name === 'data' ? held : undefined)
    const before = pair.a.begin('vol0', 0, pattern(1))
    const ending = pair.a.engine.perform(end)
    // Its extent is not active when it takes its place: it waits in the outbox.
    const behind = failureOf(pair.a.begin('vol1', 8192, pattern(2)))
    release()
    let isOver = false
    const all = Promise.all([before, ending, behind]).then((found) => {
      isOver = true
      return found
    })
    await pair.until(() => {
      const ofOthers = pair.a.engine.dirty().filter(({ store }) => store !== 'vol0')
      t.ok(
        ofOthers.every(({ dirtyBytes }) => dirtyBytes === 0),
        end.kind,
      )
      t.ok(pair.a.peer.lacksBytes <= 4096)
      return isOver
    }, 'the write is refused')
    t.match((await all)[2], { name: 'RequestError' })
    await pair.close()
  }
})

t.test('what is asked before a resume counts the outbox once, and what is dirty', async (t) => {
  const pair = await EnginePair.inSync({ replication: { outboxBytesMax: 1024 * 1024 } })
  await pair.a.write('vol0', 0, pattern(1))
  pair.a.fault = ({ kind, name }) =>
    name === 'data' && kind.startsWith('write') ? { errno: 'EIO' } : undefined
  await t.rejects(pair.a.write('vol0', 512, pattern(2, 512)))
  pair.a.fault = () => undefined
  await pair.until(() => pair.a.peer.dirtyBytes > 0, 'it failed here, and the peer has it')
  await pair.part()
  for (let at = 1; at < 16; at++) await pair.a.write('vol0', at * 4096, pattern(at))
  const { lagBytes, dirtyBytes, sentBytes } = pair.a.peer
  t.equal(dirtyBytes, 4096)
  pair.mend()
  const told = await pair.run(pair.a.engine.connectPeer({ explain: true }))
  t.match(told, { kind: 'resume', bytes: lagBytes + dirtyBytes })
  await pair.run(pair.a.engine.connectPeer())
  await pair.sync()
  const moved = pair.a.peer.sentBytes - sentBytes
  t.ok(moved <= told.bytes && moved > told.bytes * 0.8, `${moved} of ${told.bytes}`)
  await pair.same()
  await pair.close()
})
