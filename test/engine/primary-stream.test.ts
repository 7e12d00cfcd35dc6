// When a change on the primary is complete, by mode, and what becomes of those who wait when the peer is gone.
import t from 'tap'
import type { Sequence, StoreId } from '../../src/core/units.js'
import { PrimaryStream } from '../../src/engine/primary-stream.js'
import type { DataEntry } from '../../src/engine/sequencer.js'
import type { ReceivedFrame } from '../../src/replication/frames.js'
import type { Hello } from '../../src/replication/hello.js'
import { ChunkMap } from '../../src/storage/chunk-map.js'
import { Store } from '../../src/storage/group-state.js'
import { PoolKeeper } from '../../src/storage/page-keeper.js'
import type { Pool } from '../../src/storage/pool.js'
import { EnginePair, type PairOptions, pattern } from '../support/engine-pair.js'
import { failureOf } from '../support/failure.js'
import { blankHello, FakeSecondary } from '../support/fake-peer.js'
import { ManualClock } from '../support/manual-clock.js'

/** A primary that streams to a peer in the hands of the test. */
async function streaming(
  options: PairOptions = {},
): Promise<{ readonly pair: EnginePair; readonly peer: FakeSecondary }> {
  const pair = await EnginePair.make(options)
  const peers: FakeSecondary[] = []
  FakeSecondary.listen(pair, (peer) => {
    peers.push(peer)
    if (peers.length === 1) peer.serve()
  })
  await pair.a.start({ isAlone: true })
  await pair.a.create('vol0')
  await pair.run(pair.a.engine.setPeer({ uri: 'nbd://b' }))
  await pair.sync()
  const [peer] = peers
  if (peer === undefined) throw new Error('nobody connected')
  peer.isAnswering = false
  return { pair, peer }
}

/** Whether a promise has settled. */
function watch(work: Promise<unknown>): { isDone: boolean } {
  const state = { isDone: false }
  void work.finally(() => {
    state.isDone = true
  })
  return state
}

t.test('in each mode a write is complete at its own answer of the peer', async (t) => {
  for (const [mode, answers] of [
    ['sync', [false, false, true]],
    ['semi-sync', [false, true, true]],
    ['async', [true, true, true]],
  ] as const) {
    const { pair, peer } = await streaming({ replication: { mode } })
    const before = peer.received
    const write = watch(pair.a.begin('vol0', 0, pattern(1)))
    await pair.until(() => peer.received > before, 'it is sent')
    const seen: boolean[] = []
    for (const [received, applied, durable] of [
      [before, before, before],
      [before + 1, before, before],
      [before + 1, before + 1, before],
    ] as const) {
      peer.answer(received, applied, durable)
      await pair.scheduler.settle(50)
      seen.push(write.isDone)
    }
    t.same(seen, answers, mode)
    await pair.a.close()
  }
})

t.test('a forced write and a flush are complete when the peer has them on its disk', async (t) => {
  const { pair, peer } = await streaming()
  for (const begin of [
    () => pair.a.begin('vol0', 0, pattern(1), true),
    () => Promise.resolve(pair.a.export('vol0').flush()),
  ]) {
    const before = peer.received
    const work = watch(begin())
    await pair.until(() => peer.received > before, 'it is sent')
    peer.answer(peer.received, peer.received, before)
    await pair.scheduler.settle(50)
    t.equal(work.isDone, false, 'applied is not enough')
    peer.answer(peer.received, peer.received, peer.received)
    await pair.scheduler.settle(50)
    t.equal(work.isDone, true)
  }
  await pair.a.close()
})

t.test('who waits for a peer that is lost is let go behind a new generation', async (t) => {
  const { pair, peer } = await streaming({ replication: { mode: 'sync' } })
  const { generation } = pair.a.engine.status()
  const before = peer.received
  const write = watch(pair.a.begin('vol0', 0, pattern(1)))
  await pair.until(() => peer.received > before, 'it is sent')
  peer.connection.close('gone')
  await pair.until(() => write.isDone, 'the write goes on')
  const after = pair.a.engine.status()
  t.not(after.generation, generation, 'a new generation began')
  t.ok(after.durableSequence >= before + 2, 'and is durable')
  await pair.a.close()
})

t.test('a peer that says nothing is given up after the deadline', async (t) => {
  const pair = await EnginePair.inSync({ replication: { mode: 'sync', deadlineMs: 3000 } })
  for (const connection of pair.network.connections) connection.cut('silence')
  const beforeMs = pair.scheduler.nowMs
  await pair.a.write('vol0', 0, pattern(1))
  t.ok(pair.scheduler.nowMs - beforeMs <= 5000)
  await pair.sync()
  await pair.same()
  await pair.close()
})

t.test('a peer that lives and takes entries but applies none of them is given up', async (t) => {
  const { pair, peer } = await streaming({ replication: { mode: 'sync' } })
  const before = peer.received
  const write = watch(pair.a.begin('vol0', 0, pattern(1)))
  await pair.until(() => peer.received > before, 'it is sent')
  await pair.scheduler.settle(15_000)
  t.equal(write.isDone, false, 'not at once')
  await pair.scheduler.settle(30_000)
  t.equal(write.isDone, true)
  t.match(peer.reason?.message, /.+/)
  await pair.a.close()
})

t.test('close lets go of clients that wait for the peer', async (t) => {
  const { pair, peer } = await streaming({ replication: { mode: 'sync' } })
  const before = peer.received
  const write = watch(pair.a.begin('vol0', 0, pattern(1)))
  await pair.until(() => peer.received > before, 'it is sent')
  const beforeMs = pair.scheduler.nowMs
  await pair.a.close()
  t.equal(write.isDone, true)
  t.ok(pair.scheduler.nowMs - beforeMs <= 5000)
})

t.test('in stall mode a full outbox makes writers wait, and nothing is folded', async (t) => {
  const { pair, peer } = await streaming({
    replication: { mode: 'async', congestion: 'stall', outboxBytesMax: 16_384 },
  })
  const writes: { isDone: boolean }[] = []
  for (let at = 0; at < 8; at++) writes.push(watch(pair.a.begin('vol0', at * 4096, pattern(at))))
  await pair.scheduler.settle(100)
  t.ok(writes.some((write) => write.isDone))
  t.notOk(
    writes.every((write) => write.isDone),
    'some wait',
  )
  t.equal(pair.a.peer.dirtyBytes, 0)
  t.equal(pair.a.peer.isStalled, true)
  const told = (): readonly string[] =>
    pair.a.engine.recentEvents().flatMap(({ message }) => (/writers/.test(message) ? message : []))
  t.match(told(), [/writers wait for the peer/])
  peer.isAnswering = true
  peer.answer(peer.received, peer.received, peer.received)
  await pair.until(() => writes.every((write) => write.isDone), 'all go on')
  await pair.until(() => pair.a.peer.lagBytes === 0, 'the outbox is empty')
  t.equal(pair.a.peer.isStalled, undefined)
  t.match(told(), [/writers wait for the peer/, /writers go on/], 'once each')
  t.equal(pair.a.peer.dirtyBytes, 0)
  t.equal(pair.a.link, 'streaming')
  await pair.a.close()
})

t.test('answers that cannot be end the connection, and the primary goes on', async (t) => {
  const attacks: readonly [string, (peer: FakeSecondary) => void, RegExp][] = [
    [
      'beyond what was sent',
      (peer) => peer.answer(peer.received + 99, peer.received + 99, peer.received),
      /sent last/,
    ],
    ['going back', (peer) => peer.answer(1, 1, 1), /went back/],
    [
      'an outcome of nothing',
      (peer) =>
        peer.send({
          kind: 'compared',
          sequence: (peer.received + 5) as Sequence,
          lengthBytes: 4096,
          differing: Buffer.alloc(1),
        }),
      /not sent/,
    ],
    ['a second hello', (peer) => peer.send({ kind: 'hello', body: {} }), /out of place/],
    ['a second ready', (peer) => peer.send({ kind: 'ready', body: {} }), /out of place/],
    [
      'digests that nobody asked for',
      (peer) => peer.send({ kind: 'digest-answer', requestId: 5, digests: Buffer.alloc(32) }),
      /answer to nothing/,
    ],
  ]
  for (const [name, attack, reason] of attacks) {
    const { pair, peer } = await streaming({ replication: { mode: 'sync' } })
    attack(peer)
    await pair.until(() => pair.a.link !== 'streaming', 'it ends')
    t.ok(
      pair.a.engine.recentEvents().some(({ message }) => reason.test(message)),
      name,
    )
    await pair.a.write('vol0', 0, pattern(1))
    pair.a.engine.checkInvariants()
    await pair.a.close()
  }
})

t.test(
  'what is ordered when the peer is gone begins a generation, even if it came before',
  async (t) => {
    const pair = await EnginePair.inSync({ isSlow: true })
    await pair.a.create('vol1')
    await pair.a.write('vol1', 0, pattern(4))
    await pair.a.flush('vol1')
    await pair.sync()
    await pair.until(() => pair.a.peer.lagBytes === 0, 'the outbox is empty')
    const { generation } = pair.a.engine.status()
    let isCut = false
    // Half a chunk is copied before the operation has its place in the order: then the link is lost.
    pair.a.beforeCall = ({ name }) => {
      if (name !== 'data' || isCut) return
      isCut = true
      pair.cut()
    }
    await pair.a.perform({
      kind: 'sync',
      source: 'vol1',
      target: 'vol0',
      range: { offset: 512, lengthBytes: 1024 } as never,
    })
    t.equal(isCut, true)
    t.not(pair.a.engine.status().generation, generation)
    pair.a.beforeCall = () => {}
    pair.mend()
    await pair.sync()
    await pair.same()
    await pair.close()
  },
)

t.test('with a peer, what a shrink left beyond the end fails as its command does', async (t) => {
  const pair = await EnginePair.inSync({ isSlow: true, isNeverNow: true })
  await pair.a.write('vol0', 0, pattern(1))
  const waiting: Promise<unknown>[] = []
  // The half of a chunk that stays is copied while the shrink has its turn.
  pair.a.beforeCall = ({ name }) => {
    if (name !== 'data' || waiting.length > 0) return
    const zeroes = { offset: 4096, lengthBytes: 512, fua: false, mayUnmap: true, fastOnly: false }
    const target = pair.a.export('vol0')
    const trim = target.zero({ ...zeroes, errnoBeyondEnd: 'EINVAL' })
    for (const work of [trim, target.zero(zeroes), pair.a.begin('vol0', 4096, pattern(2))])
      waiting.push(failureOf(work ?? Promise.resolve()))
  }
  await pair.a.perform({ kind: 'volume.resize', name: 'vol0', sizeBytes: 512 })
  const failures = await pair.run(Promise.all(waiting))
  t.match(failures, [{ errno: 'EINVAL' }, { errno: 'ENOSPC' }, { errno: 'ENOSPC' }])
  await pair.sync()
  await pair.same()
  await pair.close()
})

t.test('a peer that came back and is lost again keeps nobody waiting', async (t) => {
  const pair = await EnginePair.inSync({ isSlow: true, isNeverNow: true })
  let release: () => void = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  pair.a.hold = ({ kind, name }) => (kind === 'write' && name === 'data' ? held : undefined)
  const writes = [watch(pair.a.begin('vol0', 0, pattern(1)))]
  await pair.scheduler.settle(50)
  // The generation without the peer waits for the write, and the peer is back before it has begun.
  await pair.part()
  pair.mend()
  pair.a.engine.connectPeer().catch(() => {})
  await pair.until(() => ['streaming', 'resyncing'].includes(pair.a.link), 'it is back')
  writes.push(watch(pair.a.begin('vol0', 4096, pattern(2))))
  await pair.part()
  release()
  await pair.until(() => writes.every((write) => write.isDone), 'both writes are done')
  pair.mend()
  await pair.sync()
  t.equal(pair.a.link, 'streaming')
  await pair.same()
  await pair.close()
})

t.test('a resync goes on as long as a write from before it is not done', async (t) => {
  const pair = await EnginePair.inSync({
    isSlow: true,
    isNeverNow: true,
    replication: { outboxBytesMax: 16_384 },
  })
  await pair.part()
  let release: () => void = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  pair.a.hold = ({ kind, name }) => (kind === 'write' && name === 'data' ? held : undefined)
  // More than the outbox keeps, and nothing is dirty as long as the disk takes its time.
  const writes = [0, 1, 2, 3, 4, 5].map((at) => pair.a.begin('vol0', at * 4096, pattern(at)))
  await pair.scheduler.settle(100)
  pair.mend()
  pair.a.engine.connectPeer().catch(() => {})
  await pair.until(() => pair.a.link === 'resyncing', 'it begins')
  await pair.scheduler.settle(2000)
  t.equal(pair.a.link, 'resyncing')
  t.equal(pair.b.engine.status().isWhole, false, 'the peer does not have those writes')
  release()
  await pair.until(() => pair.b.engine.status().isWhole === true, 'the peer is whole')
  t.equal(pair.a.peer.dirtyBytes, 0, 'and has those writes')
  await pair.run(Promise.all(writes))
  await pair.same()
  await pair.close()
})

t.test('the end of a resync that the peer has not got yet is not said again', async (t) => {
  const pair = await EnginePair.make()
  const peers: FakeSecondary[] = []
  const isEnd = (frame: ReceivedFrame): boolean =>
    frame.kind === 'operation' && frame.operation.kind === 'resync-end'
  const endsOf = (peer: FakeSecondary | undefined): number => peer?.frames.filter(isEnd).length ?? 0
  FakeSecondary.listen(pair, (peer) => {
    const [first] = peers
    peers.push(peer)
    peer.serve()
    const serve = peer.onFrame
    peer.onFrame = (frame) => {
      if (first === undefined && isEnd(frame)) return peer.connection.close('it is lost')
      if (first === undefined || frame.kind !== 'hello') return serve(frame)
      const { group, generations } = frame.body as unknown as Hello
      const sequence = first.received as Sequence
      const mine = blankHello({ group, generations, isBlank: false, isWhole: false, sequence })
      peer.received = sequence
      peer.send({ kind: 'hello', body: { ...mine } })
    }
  })
  await pair.a.start({ isAlone: true })
  await pair.a.create('vol0')
  await pair.a.write('vol0', 0, pattern(1))
  await pair.run(pair.a.engine.setPeer({ uri: 'nbd://b' }))
  await pair.sync()
  await pair.scheduler.settle(2000)
  t.equal(endsOf(peers[0]), 1, 'the first connection ended there')
  t.equal(endsOf(peers[1]), 1, 'it comes again, and no other')
  t.equal(peers.length, 2)
  await pair.a.close()
})

t.test('an extent that is refused before its write has its turn ends no process', async (t) => {
  let refuse: (error: Error) => void = () => {}
  const held = new Promise<void>((_, reject) => {
    refuse = reject
  })
  const tracking = { had: () => {}, lacked: () => {} }
  const pool = { hold: () => held, drop: () => {}, tracking } as unknown as Pool
  const stream = new PrimaryStream({
    pool,
    clock: new ManualClock(),
    lastSequence: 0 as Sequence,
    mode: 'sync',
    congestion: 'fold',
    apply: () => undefined,
    beginGeneration: async () => {},
    onOverflow: () => {},
    onStall: () => {},
    needsGeneration: false,
    mutants: new Set(),
  })
  const map = new ChunkMap(new PoolKeeper())
  const store = new Store({ id: 1 as StoreId, name: 'vol0', sizeBytes: 4096, map, createdAt: '' })
  const parts = [Buffer.alloc(512)]
  const entry: DataEntry = {
    kind: 'write',
    store,
    offset: 0,
    lengthBytes: 512,
    parts,
    mayUnmap: false,
  }
  stream.data(1 as Sequence, entry)
  const unhandled: unknown[] = []
  const note = (error: unknown): void => void unhandled.push(error)
  process.on('unhandledRejection', note)
  t.teardown(() => process.off('unhandledRejection', note))
  refuse(new Error('the journal has failed'))
  await new Promise((resolve) => setImmediate(resolve))
  t.same(unhandled, [])
  await t.rejects(stream.apply(entry) ?? Promise.resolve(), { message: 'the journal has failed' })
})
