// Block status in bounded pieces: what a request may look at, what all may in one turn of the event loop, and who is served meanwhile.
import assert from 'node:assert/strict'
import t from 'tap'
import { Command, OptionCode } from '../../nbd/constants.js'
import type { Look } from '../../nbd/export.js'
import { LongTurns } from '../../nbd/turns.js'
import { MemoryExport } from '../support/memory-export.js'
import { inTime, startServer, type TestServer } from '../support/nbd-server.js'

const statusStepsMax = 1000

/** Looks as far as it may at each block status, and counts. */
class ThoroughExport extends MemoryExport {
  readonly shares: number[] = []
  readonly calls: string[] = []
  /** The most block status calls between two turns of the event loop. */
  inOneTurnMax = 0
  #inThisTurn = 0

  constructor() {
    super({ sizeBytes: 64 * 1024 })
    this.delay = ({ command }) => void this.calls.push(command)
  }

  override blockStatus(request: Parameters<MemoryExport['blockStatus']>[0] & { look?: Look }) {
    const { look } = request
    if (look) {
      this.shares.push(look.stepsLeft)
      look.stepsLeft = 0
    }
    if (this.#inThisTurn++ === 0)
      setImmediate(() => {
        this.#inThisTurn = 0
      })
    this.inOneTurnMax = Math.max(this.inOneTurnMax, this.#inThisTurn)
    return super.blockStatus(request)
  }
}

async function served(t: Parameters<typeof startServer>[0]) {
  const memory = new ThoroughExport()
  return { memory, server: await startServer(t, { memory, limits: { statusStepsMax } }) }
}

async function clientWith(server: TestServer, contexts: readonly string[]) {
  const client = await server.connect()
  await client.negotiateExtended()
  await client.metaContexts(OptionCode.SET_META_CONTEXT, 'memory', contexts)
  await client.go('memory')
  return client
}

/** `count` whole looks, sent together. */
function manyStatuses(client: Awaited<ReturnType<typeof clientWith>>, count: number) {
  const range = { offset: 0, lengthBytes: 64 * 1024 }
  return Array.from({ length: count }, () => client.command(Command.BLOCK_STATUS, range))
}

t.test(
  'all contexts of a request share its steps, and unused ones are left to others',
  async (t) => {
    const { memory, server } = await served(t)
    memory.contexts = ['base:allocation', 'x-test:a', 'x-test:b', 'x-test:c']
    const client = await clientWith(server, memory.contexts)
    await inTime(Promise.all(manyStatuses(client, 1)), 'an answer')
    t.same(memory.shares, [250, 250, 250, 250])
    client.destroy()
  },
)

t.test('one thorough look a turn, however many are asked for by however many', async (t) => {
  const { memory, server } = await served(t)
  const clients = await Promise.all([1, 2, 3].map(() => clientWith(server, ['base:allocation'])))
  const answers = clients.flatMap((client) => manyStatuses(client, 300))
  for (const chunks of await inTime(Promise.all(answers), 'every answer'))
    assert.equal(chunks.length, 1)
  t.equal(memory.calls.length, 900)
  // A turn of the server and one of the counter need not begin at the same place.
  t.ok(memory.inOneTurnMax <= 2, `${memory.inOneTurnMax} in one turn`)
  t.equal(server.server.usedBytes, 0)
  for (const client of clients) client.destroy()
})

t.test('another client is served in between, and so is the same one', async (t) => {
  const { memory, server } = await served(t)
  const busy = await clientWith(server, ['base:allocation'])
  const other = await server.open('extended')
  const answers = manyStatuses(busy, 120)
  const range = { offset: 0, lengthBytes: 512 }
  const reads = [busy.read(range), other.read(range)]
  await inTime(Promise.all([...answers, ...reads]), 'every answer')
  t.equal(memory.calls.filter((command) => command === 'read').length, 2)
  t.ok(memory.calls.lastIndexOf('read') < 60, `${memory.calls.lastIndexOf('read')} were before`)
})

t.test('DISC behind requests that wait: all are answered first', async (t) => {
  const { memory, server } = await served(t)
  const client = await clientWith(server, ['base:allocation'])
  const answers = manyStatuses(client, 50)
  await inTime(Promise.all([...answers, client.disconnect()]), 'every answer')
  await server.ended(1)
  t.match(server.ends, [{ reason: 'disconnect' }])
  t.equal(memory.calls.length, 50)
})

t.test('what a client that left had waiting is not looked up', async (t) => {
  const { memory, server } = await served(t)
  const client = await clientWith(server, ['base:allocation'])
  const answers = Promise.allSettled(manyStatuses(client, 100))
  memory.fail = () => client.destroy()
  await inTime(answers, 'every answer')
  await server.ended(1)
  t.ok(memory.shares.length < 50, `${memory.shares.length} of 100`)
  t.equal(server.server.usedBytes, 0)
})

t.test('owners take turns, each in its own order, and each turn serves one at least', async (t) => {
  const due: (() => void)[] = []
  const turns = new LongTurns({ statusStepsMax: 10, nextTurn: (callback) => due.push(callback) })
  const turn = () => due.splice(0).forEach((callback) => void callback())
  const served: string[] = []
  const [a, b] = [{}, {}]
  turns.spend(9)
  t.notOk(turns.isUsedUp)
  turns.spend(1)
  t.ok(turns.isUsedUp)
  const add = (owner: object, name: string, steps: number) =>
    turns.wait(owner, () => {
      served.push(name)
      turns.spend(steps)
    })
  for (const name of ['a1', 'a2', 'a3']) add(a, name, 5)
  add(b, 'b1', 1000)
  add(b, 'b2', 5)
  t.equal(due.length, 1, 'one turn is waited for, not one each')
  turn()
  t.same(served, ['a1', 'b1'])
  t.ok(turns.isUsedUp)
  turn()
  t.same(served, ['a1', 'b1', 'a2', 'b2'])
  t.ok(turns.isUsedUp, 'what comes now waits behind')
  turn()
  t.same(served, ['a1', 'b1', 'a2', 'b2', 'a3'])
  t.notOk(turns.isUsedUp)
  turn()
  t.equal(due.length, 0, 'the loop may sleep')
})

t.test(
  'requests that come by the thousand wait for the next turn, all connections together',
  async (t) => {
    const served = await startServer(t)
    const clients = await Promise.all([1, 2, 3, 4].map(() => served.open()))
    let inOneTurnMax = 0
    let before = served.server.counters().requests
    let isOver = false
    const look = (): void => {
      const { requests } = served.server.counters()
      inOneTurnMax = Math.max(inOneTurnMax, requests - before)
      before = requests
      if (!isOver) setImmediate(look)
    }
    setImmediate(look)
    const answers = clients.flatMap((client) =>
      Array.from({ length: 5000 }, (_, at) => client.read({ offset: at % 4096, lengthBytes: 1 })),
    )
    await inTime(Promise.all(answers), 'all of them')
    isOver = true
    t.equal(served.server.counters().requests, 20_000)
    // A thousand by the budget; what comes in less than 64 at a time is not counted.
    t.ok(inOneTurnMax <= 2048, `${inOneTurnMax} in one turn`)
    t.ok(inOneTurnMax >= 512, 'and not one by one')
  },
)

t.test('a client that ends behind thousands of requests has all its answers', async (t) => {
  const served = await startServer(t)
  const client = await served.open()
  const answers = Array.from({ length: 5000 }, () => client.read({ offset: 0, lengthBytes: 1 }))
  const left = client.disconnect()
  await inTime(Promise.all(answers), 'all of them')
  await inTime(left, 'the goodbye')
  await served.ended(1)
  t.match(served.ends, [{ reason: 'disconnect' }])
})
