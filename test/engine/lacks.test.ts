// What the peer lacks at this moment, what is kept for it in memory included: the same as when all of that has become a map.
import t from 'tap'
import type { DirtyReport } from '../../src/engine/api.js'
import { EnginePair, pattern } from '../support/engine-pair.js'
import { failureOf } from '../support/failure.js'
import { SeededRandom } from '../support/random.js'

const volumeBytes = 65536
const names = ['vol0', 'vol1', 'vol0@a', 'vol0@b']

async function reportsOf(pair: EnginePair): Promise<readonly DirtyReport[]> {
  const stores = names.filter((name) => pair.a.storeNames.includes(name))
  return (await pair.run(Promise.all(stores.map((name) => pair.a.engine.dirty(name, 16))))).flat()
}

async function lacksBytesOf(pair: EnginePair): Promise<number | null | undefined> {
  return (await pair.run(pair.a.engine.countedStatus())).peers[0]?.lacksBytes
}

async function dirtyBytesSeen(pair: EnginePair, name: string): Promise<number> {
  const store = pair.a.export(name)
  const asked = store.blockStatus({
    context: 'x-lockstep:dirty',
    offset: 0,
    lengthBytes: store.sizeBytes,
    extentCountMax: 100,
  })
  const extents = await pair.run(Promise.resolve(asked))
  return extents.reduce((sum, { lengthBytes, flags }) => sum + lengthBytes * flags, 0)
}

/** The same, asked for in pieces that end in the middle of blocks. */
async function dirtyBytesInPieces(pair: EnginePair, name: string): Promise<number> {
  const store = pair.a.export(name)
  let sum = 0
  for (let offset = 0; offset < store.sizeBytes; offset += 5 * 512) {
    const lengthBytes = Math.min(5 * 512, store.sizeBytes - offset)
    const query = { offset, lengthBytes, extentCountMax: 100 }
    const asked = store.blockStatus({ context: 'x-lockstep:dirty', ...query })
    const extents = await pair.run(Promise.resolve(asked))
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
  t.match(await pair.a.engine.dirty('vol0', 16), [
    { dirtyBytes: 8192, picture: [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0] },
  ])
  t.equal(await dirtyBytesSeen(pair, 'vol0'), 8192)
  t.equal(pair.a.peer.lacksBytes, 8192)
  t.equal(pair.a.peer.dirtyBytes, 0, 'none of it has left')
  pair.mend()
  await pair.sync()
  t.equal(pair.a.peer.lacksBytes, 0, 'applied there')
  t.equal(await dirtyBytesSeen(pair, 'vol0'), 0)
  t.match(await pair.a.engine.dirty('vol0', 16), [{ dirtyBytes: 0 }])
  await pair.close()
})

t.test(
  'a snapshot that lacks something is named beside its volume, which may lack nothing',
  async (t) => {
    const pair = await EnginePair.inSync()
    await pair.a.snapshot('vol0@a')
    await pair.a.snapshot('vol0@b')
    await pair.sync()
    await pair.part()
    t.notOk((await pair.a.engine.dirty('vol0', 16)).some((report) => 'dirtySnapshots' in report))
    await pair.a.write('vol0@b', 4096, pattern(1))
    const reports = await pair.a.engine.dirty(undefined, 16)
    t.match(
      reports.find(({ store }) => store === 'vol0'),
      { dirtyBytes: 0, dirtySnapshots: ['vol0@b'] },
    )
    t.notOk((await pair.a.engine.dirty('vol0@b', 16)).some((report) => 'dirtySnapshots' in report))
    pair.mend()
    await pair.sync()
    t.notOk((await pair.a.engine.dirty('vol0', 16)).some((report) => 'dirtySnapshots' in report))
    await pair.close()
  },
)

t.test('what is asked in pieces is what is asked at once', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.part()
  const random = new SeededRandom(13)
  for (let count = 12; count > 0; count--) {
    const offset = 512 * random.below(volumeBytes / 512 - 4)
    await pair.a.write('vol0', offset, pattern(count, 512 * (1 + random.below(4))))
    const bytes = await dirtyBytesSeen(pair, 'vol0')
    t.equal(await dirtyBytesInPieces(pair, 'vol0'), bytes)
    t.match(await pair.a.engine.dirty('vol0', 16), [{ dirtyBytes: bytes }])
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
    // Every other time in pieces, a turn each.
    const pair = await EnginePair.inSync({
      replication: seed % 2 === 0 ? { lookEntriesMax: 1 + (seed % 3) } : {},
    })
    await pair.a.create('vol1', volumeBytes)
    for (let count = random.below(12); count > 0; count--) await change(pair, random)
    await pair.sync()
    await pair.part()
    for (let count = 24; count > 0; count--) await change(pair, random)
    const before = await reportsOf(pair)
    const { lacksBytes } = pair.a.peer
    t.equal(await lacksBytesOf(pair), lacksBytes)
    for (const { store, dirtyBytes } of before) {
      t.equal(await dirtyBytesSeen(pair, store), dirtyBytes, `seed ${seed}, ${store}`)
      t.equal(await dirtyBytesInPieces(pair, store), dirtyBytes, `seed ${seed}, ${store}`)
    }
    await pair.a.close()
    await pair.a.start({ isAlone: true })
    t.same(await reportsOf(pair), before, `seed ${seed}`)
    t.equal(pair.a.peer.lacksBytes, lacksBytes, `seed ${seed}`)
    t.equal(await lacksBytesOf(pair), lacksBytes, `seed ${seed}`)
    await pair.a.close()
    await pair.b.close()
  }
})

t.test(
  'with many entries what is told at once is told at most, what is counted is right',
  async (t) => {
    const pair = await EnginePair.inSync({ replication: { outboxBytesMax: 16 * 1024 * 1024 } })
    await pair.a.create('vol1', 4 * volumeBytes)
    await pair.a.write('vol1', 0, pattern(1, 2 * volumeBytes))
    await pair.a.flush('vol1')
    await pair.sync()
    await pair.part()
    for (let count = 0; count < 3000; count++)
      await pair.a.write('vol0', (count % 8) * 4096, pattern(count % 200, 512))
    t.equal(await lacksBytesOf(pair), 8 * 4096)
    t.equal(pair.a.peer.lacksBytes, 2 * volumeBytes + 8 * 4096, 'no more than there is')
    const [report] = await pair.run(pair.a.engine.dirty('vol0', 16))
    t.equal(report?.dirtyBytes, 8 * 4096)
    t.equal(await dirtyBytesSeen(pair, 'vol0'), 8 * 4096)
    pair.mend()
    await pair.sync()
    t.equal(await lacksBytesOf(pair), 0)
    await pair.close()
  },
)

t.test('a store that is gone, or another, when a look is over', async (t) => {
  const pair = await EnginePair.inSync({ replication: { lookEntriesMax: 1 } })
  await pair.a.create('vol1')
  await pair.sync()
  await pair.part()
  for (let at = 0; at < 16; at++) await pair.a.write('vol1', at * 4096, pattern(at))
  const vol1 = pair.a.export('vol1')
  const range = { offset: 0, lengthBytes: volumeBytes, extentCountMax: 9 }
  const first = pair.a.engine.dirty()
  const second = vol1.blockStatus({ context: 'x-lockstep:dirty', ...range })
  await pair.a.perform({ kind: 'volume.resize', name: 'vol1', sizeBytes: 8192 })
  await pair.a.create('vol2')
  const all = await pair.run(first)
  t.match(
    all,
    [{ store: 'vol0' }, { store: 'vol1', sizeBytes: volumeBytes, dirtyBytes: volumeBytes }],
    'as it was',
  )
  t.equal(all.length, 2)
  const extents = await pair.run(Promise.resolve(second))
  const toldBytes = extents.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)
  t.equal(toldBytes, volumeBytes, 'all of what it asked for')
  const gone = failureOf(pair.a.engine.dirty('vol1'))
  await pair.a.perform({ kind: 'volume.delete', name: 'vol1' })
  await pair.a.create('vol1')
  t.match(await pair.run(gone), { code: 'NO_SUCH_STORE' })
  await pair.a.close()
  await pair.b.close()
})

t.test(
  'of a node that was never met, or is not tracked any more, everything is lacking',
  async (t) => {
    const pair = await EnginePair.make()
    await pair.a.start()
    await pair.a.create('vol0')
    await pair.a.write('vol0', 0, pattern(1))
    await pair.a.snapshot('vol0@a')
    t.match(await pair.a.engine.dirty('vol0', 4), [{ dirtyBytes: 4096, picture: [0.25, 0, 0, 0] }])
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
    const asked: Promise<readonly DirtyReport[]>[] = []
    await pair.until(() => {
      asked.push(pair.a.engine.dirty())
      t.ok(pair.a.peer.lacksBytes <= 4096)
      return isOver
    }, 'the write is refused')
    t.match((await all)[2], { name: 'RequestError' })
    const ofOthers = (await Promise.all(asked)).flat().filter(({ store }) => store !== 'vol0')
    t.ok(
      ofOthers.every(({ dirtyBytes }) => dirtyBytes === 0),
      end.kind,
    )
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
