// Marks between two engines: what the replica keeps is what the primary was at the mark's position, the hook runs behind it and beside the stream, and the
// result comes back; what cannot be done is said.
import t from 'tap'
import { limits } from '../../src/core/limits.js'
import type { MarkRequest } from '../../src/core/operation.js'
import type { Sequence } from '../../src/core/units.js'
import type { HookOutcome, MarkResult, RunHook } from '../../src/engine/api.js'
import { EnginePair, pattern } from '../support/engine-pair.js'

type HookRequest = Parameters<RunHook>[0]

const done: Omit<HookOutcome, 'name'> = { exitCode: 0, isTimedOut: false, output: 'said' }

/** Hooks that a test lets end, in the order in which they began. */
class Hooks {
  readonly begun: HookRequest[] = []
  readonly #ends: ((outcome: HookOutcome) => void)[] = []

  readonly run: RunHook = (request) => {
    this.begun.push(request)
    return new Promise((resolve) => this.#ends.push(resolve))
  }

  end(): void {
    this.#ends.shift()?.({ name: this.begun.at(-1)?.hook ?? '', ...done })
  }
}

function pairWith(runHook: RunHook): Promise<EnginePair> {
  return EnginePair.inSync({ replication: { runHook } })
}

async function marked(pair: EnginePair, request: MarkRequest): Promise<MarkResult> {
  const { position } = await pair.run(pair.a.engine.mark(request))
  return pair.run(pair.a.engine.markResult(position.sequence, 60_000))
}

t.test('the replica keeps what the primary was at the mark, and nobody else does', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.a.create('vol1', 8192)
  await pair.a.write('vol0', 0, pattern(1))
  await pair.a.snapshot('vol0@user')
  const under = pair.a.begin('vol0', 0, pattern(2))
  const mark = pair.a.engine.mark({ name: 'm', snapshot: 'x' })
  const after = pair.a.begin('vol0', 0, pattern(3))
  await pair.run(Promise.all([under, mark, after]))
  const { position } = await mark
  const result = await pair.run(pair.a.engine.markResult(position.sequence, 1000))
  t.same(result, {
    name: 'm',
    snapshots: ['vol0@local.x', 'vol1@local.x'],
    snapshotCount: 2,
    problems: [],
  })
  t.equal((await pair.b.read('vol0@local.x', 0, 1))[0], 2)
  t.equal((await pair.b.read('vol0', 0, 1))[0], 3)
  const kept = pair.b.engine.status().stores.find((store) => store.name === 'vol0@local.x')
  t.match(kept, { snapshotOf: 'vol0', isLocal: true, sizeBytes: 65536, position })
  t.notOk(pair.a.storeNames.some((name) => name.includes('local')))
  t.equal(pair.b.export('vol0@local.x').isReadOnly, true)
  t.match(pair.b.export('vol0@local.x').metaContexts(), [
    'base:allocation',
    'x-lockstep:changed-since:user',
  ])
  const context = 'x-lockstep:changed-since:local.x'
  t.same(
    await pair.b
      .export('vol0')
      .blockStatus({ context, offset: 0, lengthBytes: 65536, extentCountMax: 9 }),
    [
      { lengthBytes: 4096, flags: 1 },
      { lengthBytes: 61_440, flags: 0 },
    ],
  )
  for (const node of [pair.a, pair.b])
    t.ok(
      node.engine.recentEvents().some(({ message }) => /mark m; 2 snapshots/.test(message)),
      'both nodes have it among their events',
    )
  await pair.close()
})

t.test('a snapshot of the replica is deleted there, and lives through a start', async (t) => {
  const pair = await EnginePair.inSync()
  await pair.a.write('vol0', 0, pattern(5))
  await marked(pair, { name: 'm', snapshot: 'x' })
  await pair.b.close()
  await pair.b.start()
  await pair.sync()
  t.equal((await pair.b.read('vol0@local.x', 0, 1))[0], 5)
  const attached = pair.b.export('vol0@local.x')
  const detach = pair.b.engine.exports.attach(attached)
  const request = { kind: 'snapshot.delete', store: 'vol0@local.x' } as const
  t.throws(() => pair.b.engine.check(request), { code: 'IN_USE' })
  await t.rejects(pair.b.perform(request), { code: 'IN_USE' })
  detach()
  pair.b.engine.check(request)
  const ofStream = { kind: 'snapshot.delete', store: 'vol0@m' } as const
  t.throws(() => pair.b.engine.check(ofStream), { code: 'NOT_PRIMARY' })
  t.match(await pair.b.perform(request), { stores: ['vol0@local.x'] })
  await t.rejects(pair.b.perform(request), { code: 'NO_SUCH_STORE' }, 'gone')
  await t.rejects(
    pair.b.perform({ kind: 'snapshot.delete', store: 'vol0' }),
    { code: 'NOT_PRIMARY' },
    'of the stream',
  )
  t.same(pair.b.storeNames, ['vol0'])
  await pair.run(pair.b.engine.reclaim())
  pair.b.engine.checkInvariants()
  await pair.close()
})

t.test("a name that is taken, or is the engine's own, is refused in words", async (t) => {
  const hooks = new Hooks()
  const pair = await pairWith(hooks.run)
  await marked(pair, { name: 'm', snapshot: 'x' })
  await pair.a.create('vol1')
  const again = await marked(pair, { name: 'm2', snapshot: 'x', hook: 'backup' })
  t.match(again.problems, [
    { message: /there is a vol0@local\.x already/, action: /snapshot delete vol0@local\.x/ },
    { message: /hook backup did not run: it would not see/ },
  ])
  t.same(hooks.begun, [], 'a hook would see the snapshot of the mark before')
  t.notOk(pair.b.storeNames.includes('vol1@local.x'), 'all of them, or none')
  for (const name of ['local.x', 'before-resync', 'before-resync.x']) {
    await t.rejects(pair.a.snapshot(`vol0@${name}`), { code: 'INVALID_NAME' })
  }
  await pair.a.snapshot('vol0@a')
  await t.rejects(
    pair.a.perform({ kind: 'snapshot.rename', store: 'vol0@a', newName: 'local.a' }),
    { code: 'INVALID_NAME' },
  )
  for (const request of [
    { name: 'no/name' },
    { name: 'm', hook: '../x' },
    { name: 'm', snapshot: 'a@b' },
    { name: 'm', message: 'x'.repeat(limits.markMessageBytesMax + 1) },
    { name: 'm', message: 'a\0b' },
  ])
    await t.rejects(pair.run(pair.a.engine.mark(request)), /name|message/)
  await pair.close()
})

t.test('a hook runs behind its snapshot, with the position, and its result returns', async (t) => {
  const hooks = new Hooks()
  const pair = await pairWith(hooks.run)
  const mark = pair.a.engine.mark({ name: 'm', hook: 'backup', snapshot: 'x', message: 'hello' })
  const { position } = await pair.run(mark)
  await pair.until(() => hooks.begun.length === 1, 'the hook begins')
  t.same(hooks.begun, [
    { hook: 'backup', name: 'm', position, message: 'hello', snapshot: 'local.x' },
  ])
  const result = pair.a.engine.markResult(position.sequence, 60_000)
  await pair.a.write('vol0', 0, pattern(1))
  await pair.a.flush('vol0')
  t.equal((await pair.b.read('vol0', 0, 1))[0], 1, 'the stream does not wait for the hook')
  hooks.end()
  t.match(await pair.run(result), { hook: { name: 'backup', ...done }, problems: [] })
  await pair.close()
})

t.test('one hook runs at a time; above the limit one is left out, and says so', async (t) => {
  const hooks = new Hooks()
  const pair = await pairWith(hooks.run)
  const count = limits.hooksWaitingMax + 2
  const sequences = []
  for (let index = 0; index < count; index++) {
    const mark = await pair.run(pair.a.engine.mark({ name: `m${index}`, hook: 'h' }))
    sequences.push(mark.position.sequence)
  }
  const last = sequences.at(-1)
  t.match(last === undefined ? {} : await pair.run(pair.a.engine.markResult(last, 60_000)), {
    problems: [{ message: /64 hooks wait/ }],
  })
  for (let ended = 0; ended < count - 1; ended++) {
    await pair.until(() => hooks.begun.length === ended + 1, `hook ${ended} begins`)
    hooks.end()
  }
  const [first] = sequences
  t.match(first === undefined ? {} : await pair.run(pair.a.engine.markResult(first, 60_000)), {
    hook: { exitCode: 0 },
  })
  t.same(
    hooks.begun.map(({ name }) => name),
    Array.from({ length: count - 1 }, (_, index) => `m${index}`),
    'in the order of the marks',
  )
  await pair.close()
})

t.test(
  'a result that comes while nobody is connected is told by the next connection',
  async (t) => {
    const hooks = new Hooks()
    const pair = await pairWith(hooks.run)
    const { position } = await pair.run(pair.a.engine.mark({ name: 'm', hook: 'h' }))
    await pair.until(() => hooks.begun.length === 1, 'the hook begins')
    await pair.part()
    hooks.end()
    pair.mend()
    t.match(await pair.run(pair.a.engine.markResult(position.sequence, 60_000)), {
      hook: { name: 'h', exitCode: 0 },
    })
    await pair.sync()
    await pair.close()
  },
)

t.test('a replica that is killed while its hook runs leaves an answer behind', async (t) => {
  const hooks = new Hooks()
  const pair = await pairWith(hooks.run)
  const { position } = await pair.run(pair.a.engine.mark({ name: 'm', hook: 'h' }))
  await pair.until(() => hooks.begun.length === 1, 'the hook begins')
  const result = pair.a.engine.markResult(position.sequence, 60_000)
  pair.b.kill()
  await pair.b.start()
  t.match(await pair.run(result), {
    name: 'm',
    problems: [{ message: /whether its hook ran to the end is not known/ }],
  })
  await pair.sync()
  t.equal(hooks.begun.length, 1, 'it is not run again')
  await pair.close()
})

/** Both nodes in the midst of a mark with a snapshot and a hook, so many steps behind its beginning. */
async function marking(steps: number) {
  const hooks = new Hooks()
  const pair = await EnginePair.inSync({ isSlow: true, replication: { runHook: hooks.run } })
  let made: Sequence | undefined
  const making = pair.a.engine.mark({ name: 'm', hook: 'h', snapshot: 'x' })
  making.then(
    ({ position }) => {
      made = position.sequence
    },
    () => {},
  )
  for (let step = 0; step < steps; step++) await pair.scheduler.step()
  return { pair, hooks, made }
}

t.test('a hook runs at most once, whichever nodes end around its mark, and when', async (t) => {
  const counts = { ran: 0, didNot: 0, told: 0 }
  let isOver = false
  for (let steps = 0; !isOver; steps++) {
    for (const names of [['a'], ['b'], ['a', 'b'], ['b', 'a']] as const) {
      for (const end of ['kill', 'crash'] as const) {
        const where = `${end} of ${names.join(' and ')} behind ${steps} steps`
        const { pair, hooks, made } = await marking(steps)
        isOver = made !== undefined && hooks.begun.length > 0
        for (const name of names) {
          pair[name][end]()
          await pair.scheduler.step()
        }
        for (const name of names) await pair[name].start()
        await pair.sync()
        const ranCount = hooks.begun.length
        t.ok(ranCount <= 1, `at most once: ${where}`)
        if (ranCount === 1)
          t.ok(pair.b.storeNames.includes('vol0@local.x'), `what it was to see is there: ${where}`)
        counts[ranCount === 1 ? 'ran' : 'didNot']++
        hooks.end()
        // Whoever asked hears of it, if that life of the primary is the one that was asked.
        if (made !== undefined && names[0] === 'b' && names.length === 1) {
          const { hook, problems } = await pair.run(pair.a.engine.markResult(made, 60_000))
          t.equal(
            hook === undefined,
            problems.length > 0,
            `how it ended, or that nobody knows: ${where}`,
          )
          counts.told++
        }
        await pair.close()
      }
    }
  }
  t.comment(JSON.stringify(counts))
  t.ok(Math.min(counts.ran, counts.didNot, counts.told) > 1, 'all of that happened')
})

t.test(
  'a replica that is away performs the mark in its place, or says that it could not',
  async (t) => {
    const pair = await EnginePair.inSync({ replication: { outboxBytesMax: 128 * 1024 } })
    await pair.a.write('vol0', 0, pattern(1))
    await pair.part()
    const short = await pair.run(pair.a.engine.mark({ name: 'short', snapshot: 'short' }))
    await pair.a.write('vol0', 0, pattern(2))
    pair.mend()
    const kept = await pair.run(pair.a.engine.markResult(short.position.sequence, 60_000))
    t.same(kept.snapshots, ['vol0@local.short'], 'from the outbox, in order')
    t.equal((await pair.b.read('vol0@local.short', 0, 1))[0], 1)
    await pair.sync()
    await pair.part()
    const long = await pair.run(pair.a.engine.mark({ name: 'long', snapshot: 'long' }))
    for (let at = 0; at < 48; at++) await pair.a.write('vol0', (at % 16) * 4096, pattern(at))
    t.ok(pair.a.peer.dirtyBytes > 0, 'the outbox was folded')
    pair.mend()
    const missed = await pair.run(pair.a.engine.markResult(long.position.sequence, 60_000))
    t.match(missed, { snapshots: [], problems: [{ message: /was away at this position/ }] })
    await pair.sync()
    t.notOk(pair.b.storeNames.includes('vol0@local.long'))
    await pair.close()
  },
)

t.test(
  'in the middle of a resync nothing is kept: it would be no state of the primary',
  async (t) => {
    const hooks = new Hooks()
    const outboxBytesMax = 128 * 1024
    const pair = await EnginePair.inSync({
      isSlow: true,
      replication: { outboxBytesMax, runHook: hooks.run, mode: 'async' },
    })
    await pair.part()
    for (let at = 0; at < 48; at++) await pair.a.write('vol0', (at % 16) * 4096, pattern(at))
    pair.mend()
    pair.a.engine.connectPeer().catch(() => {})
    await pair.until(() => pair.a.link === 'resyncing', 'the resync')
    t.equal(pair.b.engine.status().isWhole, false)
    const result = await marked(pair, { name: 'm', snapshot: 'x', hook: 'h' })
    t.match(result, { snapshots: [], problems: [{ message: /a resync is unfinished/ }, {}] })
    t.same(hooks.begun, [])
    await pair.sync()
    t.same((await marked(pair, { name: 'm', snapshot: 'x' })).snapshots, ['vol0@local.x'])
    await pair.close()
  },
)

t.test(
  'a snapshot of a time when a failed write is being repaired is told to differ',
  async (t) => {
    const pair = await EnginePair.inSync()
    await pair.a.write('vol0', 0, pattern(1))
    pair.a.fault = ({ kind, name }) =>
      name === 'data' && /^(read|write)/.test(kind) ? { errno: 'EIO' } : undefined
    await t.rejects(pair.a.write('vol0', 0, pattern(2)))
    const result = await marked(pair, { name: 'm', snapshot: 'x' })
    t.match(result, { snapshotCount: 1, problems: [{ message: /may differ from this node/ }] })
    pair.a.fault = () => undefined
    await pair.sync()
    t.same((await marked(pair, { name: 'm', snapshot: 'y' })).problems, [])
    await pair.same()
    await pair.close()
  },
)

t.test('without a peer there is nobody who could keep or run anything', async (t) => {
  const pair = await EnginePair.make()
  await pair.a.start({ isAlone: true })
  await pair.b.start()
  await pair.a.create('vol0')
  const { engine } = pair.a
  t.match(await pair.run(engine.mark({ name: 'm' })), { stores: [] })
  const noPeer = { code: 'INVALID_ARGUMENT', message: /no peer/ }
  await t.rejects(pair.run(engine.mark({ name: 'm', hook: 'h' })), noPeer)
  await t.rejects(pair.run(engine.mark({ name: 'm', snapshot: 'x' })), noPeer)
  await t.rejects(pair.run(engine.mark({ name: 'm' }, { isAwaited: true })), noPeer)
  await t.rejects(pair.run(engine.waitFor('in-sync', 1000)), noPeer)
  const noSecondary = { code: 'INVALID_ARGUMENT', action: /lockstep peer set nbd:/ }
  await t.rejects(pair.run(engine.waitFor('promotable', 1000)), noSecondary)
  await t.rejects(pair.run(pair.b.engine.mark({ name: 'm' })), { code: 'NOT_PRIMARY' })
  const once = { requestId: 'r' }
  const first = await pair.run(engine.mark({ name: 'm' }, once))
  t.same(await pair.run(engine.mark({ name: 'm' }, once)), first, 'a retry is no second mark')
  await pair.close()
})

t.test('a replica without hooks, and a hook that fails, are told', async (t) => {
  const none = await EnginePair.inSync()
  t.match(await marked(none, { name: 'm', hook: 'h', snapshot: 'x' }), {
    snapshots: ['vol0@local.x'],
    problems: [{ message: /hook h did not run/ }],
  })
  await none.close()
  const pair = await pairWith(() => Promise.reject(new Error('of the system')))
  t.match(await marked(pair, { name: 'm', hook: 'h' }), {
    problems: [{ message: 'hook h could not be run', action: /log of the replica/ }],
  })
  await pair.close()
})

t.test(
  'the events of both nodes have what was said with a mark, safe for a terminal',
  async (t) => {
    const pair = await EnginePair.inSync()
    const message = `before 4.2\u001b[2J\n${'x'.repeat(1000)}`
    await marked(pair, { name: 'm', message })
    const [own] = pair.a.engine
      .recentEvents()
      .filter(({ kind }) => kind === 'operation')
      .slice(-1)
    const [theirs] = pair.b.engine.recentEvents().filter(({ kind }) => kind === 'mark')
    t.match(own?.message, /^mark m: before 4\.2 \[2J x{100,}…$/)
    t.match(theirs?.message, /^mark m: before 4\.2 \[2J x{100,}…$/)
    await pair.close()
  },
)

t.test('a mark is among the events before what became of it', async (t) => {
  const pair = await EnginePair.inSync()
  const { position } = await pair.run(pair.a.engine.mark({ name: 'm', snapshot: 'x' }))
  await pair.run(pair.a.engine.markResult(position.sequence, 60_000))
  const told = pair.a.engine.recentEvents().filter(({ sequence }) => sequence === position.sequence)
  t.match(
    told.map(({ kind }) => kind),
    ['operation', 'mark'],
  )
  await pair.close()
})
