// What a connection may hold is bounded: the server stops reading, and goes on when something is finished.
import { setImmediate as nextTurn } from 'node:timers/promises'
import t from 'tap'
import type { NbdClient } from '../../nbd/client.js'
import { Command, OptionCode } from '../../nbd/constants.js'
import { RequestHeader } from '../../nbd/messages.js'
import { infoBody } from '../../nbd/option-bodies.js'
import { ManualTimers } from '../support/manual-timers.js'
import { assertServes, inTime, startServer, type TestServer, until } from '../support/nbd-server.js'

const KiB = 1024
const MiB = 1024 * KiB

function read(cookie: number, lengthBytes: number, offset = 0): Buffer {
  return RequestHeader.encode({
    flags: 0,
    type: Command.READ,
    cookie: BigInt(cookie),
    offset: BigInt(offset),
    lengthBytes,
  })
}

/** A client that asks and never reads an answer. */
async function deafClient(served: TestServer): Promise<NbdClient> {
  const client = await served.connect()
  await client.expectAck(OptionCode.GO, infoBody('memory'))
  client.reader.detach()
  return client
}

/** Waits until the server takes no further request for many turns. */
async function untilStill(served: TestServer): Promise<number> {
  let requests = -1
  for (let stillTurns = 0; stillTurns < 200; stillTurns++) {
    await nextTurn()
    const now = served.server.counters().requests
    if (now !== requests) stillTurns = 0
    requests = now
  }
  return requests
}

t.test(
  'a connection has at most so many requests in flight, and the rest wait their turn',
  async (t) => {
    const served = await startServer(t, { limits: { requestCountMax: 5 } })
    let open = (): void => {}
    const wait = new Promise<void>((resolve) => {
      open = resolve
    })
    let inFlight = 0
    let inFlightMax = 0
    served.memory.delay = async () => {
      inFlightMax = Math.max(inFlightMax, ++inFlight)
      await wait
      inFlight--
    }
    const client = await served.open()
    const reads = Array.from({ length: 50 }, () => client.read({ offset: 0, lengthBytes: 512 }))
    await until(() => inFlight === 5, 'five are in flight')
    t.equal(await untilStill(served), 5)
    open()
    await inTime(Promise.all(reads), 'all are answered')
    t.equal(inFlightMax, 5)
  },
)

t.test('payload in flight is bounded in bytes', async (t) => {
  const served = await startServer(t, {
    sizeBytes: 4 * MiB,
    limits: { inFlightBytesMax: 1 * MiB },
  })
  let open = (): void => {}
  const wait = new Promise<void>((resolve) => {
    open = resolve
  })
  served.memory.delay = () => wait
  const client = await served.open()
  const writes = Array.from({ length: 10 }, () =>
    client.write({ offset: 0, data: Buffer.alloc(512 * KiB) }),
  )
  const begun = await untilStill(served)
  t.ok(begun === 2 || begun === 3, `${begun} writes were taken on`)
  open()
  await inTime(Promise.all(writes), 'all are answered')
})

t.test(
  'a client that does not read stops being read, and is closed when it takes nothing for long',
  async (t) => {
    const timers = new ManualTimers()
    const served = await startServer(t, {
      timers,
      sizeBytes: 1 * MiB,
      limits: { unreadBytesHigh: 2 * MiB, unreadTimeoutMs: 60_000 },
    })
    served.memory.content.fill(1)
    const client = await deafClient(served)
    for (let cookie = 0; cookie < 200; cookie++) client.send(read(cookie, 1 * MiB))
    const begun = await untilStill(served)
    t.ok(begun < 20, `${begun} of 200 requests were taken on`)
    t.ok(served.server.usedBytes < 8 * MiB, `${served.server.usedBytes} bytes are held`)
    // More requests are no sign of life.
    timers.advance(40_000)
    client.send(read(201, 512))
    timers.advance(15_000)
    t.equal(served.ends.length, 0)
    await assertServes(served)
    timers.advance(25_000)
    await served.ended(2)
    t.match(
      served.ends.find(({ reason }) => reason === 'timeout'),
      { message: 'the client took no replies for too long' },
    )
    t.equal(served.server.usedBytes, 0)
    client.destroy()
  },
)

t.test('a client that reads slowly is not closed', async (t) => {
  const timers = new ManualTimers()
  const served = await startServer(t, { timers, limits: { unreadTimeoutMs: 1000 } })
  served.memory.content.fill(1)
  const client = await deafClient(served)
  const count = 30
  for (let cookie = 0; cookie < count; cookie++) client.send(read(cookie, 1 * MiB))
  let takenBytes = 0
  client.stream.on('data', (data: Buffer) => {
    takenBytes += data.length
  })
  for (let step = 0; takenBytes < count * (1 * MiB + 16); step++) {
    const before = takenBytes
    client.stream.resume()
    await until(() => takenBytes > before, 'more came')
    client.stream.pause()
    if (step % 4 === 0) timers.advance(100)
  }
  t.same(served.ends, [])
  client.destroy()
})

t.test(
  'requests wait when their replies could exceed what may be unread; the client is not closed',
  async (t) => {
    let open = (): void => {}
    const wait = new Promise<void>((resolve) => {
      open = resolve
    })
    const served = await startServer(t, {
      limits: { unreadBytesHigh: 2 * MiB, unreadBytesMax: 8 * MiB },
    })
    served.memory.content.fill(1)
    served.memory.delay = () => wait
    const client = await deafClient(served)
    for (let cookie = 0; cookie < 60; cookie++) client.send(read(cookie, 1 * MiB))
    t.equal(await untilStill(served), 7 + 1, 'seven in flight, and the one that waits')
    open()
    await untilStill(served)
    t.ok(served.server.usedBytes <= 8 * MiB, `${served.server.usedBytes} bytes are held`)
    t.same(served.ends, [])
    let takenBytes = 0
    client.stream.on('data', (data: Buffer) => {
      takenBytes += data.length
    })
    client.stream.resume()
    await until(() => takenBytes === 60 * (1 * MiB + 16), 'all is answered')
    t.same(served.ends, [])
    client.destroy()
  },
)

t.test('a large request waits for those in flight, not beside them', async (t) => {
  const opens: (() => void)[] = []
  const served = await startServer(t, {
    sizeBytes: 4 * MiB,
    limits: { inFlightBytesMax: 4 * MiB, readSliceBytes: 4 * MiB },
  })
  served.memory.delay = () => new Promise<void>((resolve) => opens.push(resolve))
  const client = await served.open()
  const small = client.read({ offset: 0, lengthBytes: 1 * MiB })
  const large = client.read({ offset: 0, lengthBytes: 4 * MiB })
  await untilStill(served)
  t.equal(opens.length, 1)
  opens[0]?.()
  await inTime(small, 'the small read')
  await until(() => opens.length === 2, 'the large one begins')
  opens[1]?.()
  t.equal((await inTime(large, 'the large read')).length, 4 * MiB)
})

t.test('a reply above the limit ends the connection', async (t) => {
  const served = await startServer(t, {
    sizeBytes: 32 * MiB,
    limits: { unreadBytesMax: 8 * MiB },
  })
  served.memory.content.fill(1)
  const client = await deafClient(served)
  client.send(read(1, 32 * MiB))
  await served.ended(1)
  t.match(served.ends, [{ reason: 'unread' }])
  t.equal(served.server.usedBytes, 0)
  client.destroy()
})

t.test(
  'a payload that stops in the middle is given up in time, and its memory with it',
  async (t) => {
    const timers = new ManualTimers()
    const served = await startServer(t, { timers, limits: { payloadTimeoutMs: 4000 } })
    const client = await served.open()
    client.send(
      client.encodeRequest({ command: Command.WRITE, lengthBytes: 500 * KiB }),
      Buffer.alloc(100 * KiB),
    )
    await until(() => served.server.usedBytes >= 500 * KiB, 'the payload has its memory')
    timers.advance(3900)
    client.send(Buffer.alloc(1))
    await untilStill(served)
    timers.advance(1200)
    await served.ended(1)
    t.match(served.ends, [{ reason: 'timeout', message: 'a payload took too long' }])
    t.equal(served.server.usedBytes, 0)
  },
)

t.test(
  'connections that want more than the whole budget take turns, and all are served',
  async (t) => {
    const processBytesMax = 3 * MiB
    const served = await startServer(t, { sizeBytes: 1 * MiB, limits: { processBytesMax } })
    served.memory.delay = () => nextTurn()
    const clients = await Promise.all(Array.from({ length: 12 }, () => served.open('structured')))
    served.memory.content.fill(1)
    let usedBytesMax = 0
    let isOver = false
    const watch = (async () => {
      while (!isOver) {
        usedBytesMax = Math.max(usedBytesMax, served.server.usedBytes)
        await nextTurn()
      }
    })()
    const work = clients.map(async (client, index) => {
      for (let round = 0; round < 6; round++) {
        const data = Buffer.alloc(768 * KiB, index + 1)
        await Promise.all([
          client.write({ offset: 0, data }),
          client.read({ offset: 0, lengthBytes: 1 * MiB }),
          client.write({ offset: 0, data: data.subarray(0, 512) }),
        ])
      }
    })
    await inTime(Promise.all(work), 'all are served')
    isOver = true
    await watch
    // What is in the middle of being sent or held by a connection for itself comes on top.
    const ownBytes = 12 * 700 * KiB
    t.ok(usedBytesMax <= processBytesMax + ownBytes, `${usedBytesMax} bytes`)
    for (const client of clients) await client.disconnect()
    await served.ended(12)
    t.equal(served.server.usedBytes, 0)
  },
)

t.test('clients that hold all memory do not lock out small requests of others', async (t) => {
  const served = await startServer(t, { limits: { processBytesMax: 1 * MiB } })
  const hog = await served.open()
  hog.send(hog.encodeRequest({ command: Command.WRITE, lengthBytes: 1 * MiB }))
  await until(() => served.server.usedBytes >= 1 * MiB, 'all memory is taken')
  hog.send(Buffer.alloc(100 * KiB))
  await assertServes(served)
  const waiting = await served.open()
  const write = waiting.write({ offset: 0, data: Buffer.alloc(300 * KiB, 9) })
  await untilStill(served)
  await assertServes(served)
  hog.destroy()
  await inTime(write, 'the large write, once there is memory')
  t.equal(served.memory.content[0], 9)
})
