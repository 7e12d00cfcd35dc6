// The life of a session: failures are answered and it goes on, replies come in any order, and every kind of end is clean.
import { AssertionError } from 'node:assert'
import t from 'tap'
import { Command, CommandFlag } from '../../nbd/constants.js'
import { RequestError } from '../../nbd/errors.js'
import { inTime, startServer, until } from '../support/nbd-server.js'

const KiB = 1024
const styles = ['simple', 'structured', 'extended'] as const

/** The errno that the server answered with; undefined for a success. */
async function errnoOf(answer: Promise<unknown>): Promise<string | undefined> {
  try {
    await inTime(answer, 'an answer')
    return undefined
  } catch (error) {
    if (!(error instanceof RequestError)) throw error
    return error.errno
  }
}

/** A promise and its ends. */
function gate(): { readonly promise: Promise<void>; open(): void; fail(error: Error): void } {
  let open = (): void => {}
  let fail: (error: Error) => void = () => {}
  const promise = new Promise<void>((resolve, reject) => {
    open = resolve
    fail = reject
  })
  return { promise, open: () => open(), fail: (error) => fail(error) }
}

for (const style of styles) {
  t.test(`${style}: each wrong request gets its errno, and the next one is served`, async (t) => {
    const served = await startServer(t)
    const client = await served.open(style)
    const size = 1024 * KiB
    const payloadFlag = style === 'extended' ? CommandFlag.PAYLOAD_LEN : 0
    const { READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS } = Command
    const rows = [
      [{ command: READ, offset: size, lengthBytes: 1 }, 'EINVAL'],
      [{ command: READ, offset: size - 1, lengthBytes: 2 }, 'EINVAL'],
      [{ command: READ, offset: 2n ** 64n - 1n, lengthBytes: 1 }, 'EINVAL'],
      [{ command: READ, offset: 2n ** 63n, lengthBytes: 0xffff_ffff }, 'EINVAL'],
      [{ command: READ, lengthBytes: 0x8000_0000 }, 'EINVAL'],
      [{ command: READ, lengthBytes: 32 * 1024 * KiB + 1 }, 'EINVAL'],
      [{ command: READ, lengthBytes: 1, flags: CommandFlag.REQ_ONE }, 'EINVAL'],
      [{ command: WRITE, offset: size, payload: Buffer.alloc(10), flags: payloadFlag }, 'ENOSPC'],
      [
        { command: WRITE, offset: 2n ** 60n, payload: Buffer.alloc(70_000), flags: payloadFlag },
        'ENOSPC',
      ],
      [
        { command: WRITE, payload: Buffer.alloc(10), flags: payloadFlag | CommandFlag.DF },
        'EINVAL',
      ],
      [{ command: TRIM, offset: size, lengthBytes: 1 }, 'EINVAL'],
      [{ command: CACHE, offset: size, lengthBytes: 1 }, 'EINVAL'],
      [{ command: WRITE_ZEROES, offset: size, lengthBytes: 1 }, 'ENOSPC'],
      [{ command: WRITE_ZEROES, lengthBytes: 1, flags: CommandFlag.REQ_ONE }, 'EINVAL'],
      [{ command: FLUSH, offset: 1 }, 'EINVAL'],
      [{ command: FLUSH, lengthBytes: 1 }, 'EINVAL'],
      [{ command: BLOCK_STATUS, lengthBytes: 1 }, 'EINVAL'],
      [{ command: 8 }, 'EINVAL'],
      [{ command: 0xffff, flags: 0xffdf }, 'EINVAL'],
      [{ command: FLUSH, flags: 1 << 15 }, 'EINVAL'],
    ] as const
    for (const [request, errno] of rows) {
      const { error } = await inTime(client.request(request), `an answer to ${request.command}`)
      t.equal(error?.errno, errno, `${request.command}: ${error?.message}`)
      if (style !== 'simple') t.not(error?.message, '')
    }
    t.equal((await client.read({ offset: 0, lengthBytes: 8 })).length, 8)
    t.equal(served.server.counters().failedRequests, rows.length)
    t.same(served.failures, [], "none of these is the export's failure")
  })

  t.test(
    `${style}: a change whose range is gone when its turn comes gets the same errno`,
    async (t) => {
      const served = await startServer(t)
      const client = await served.open(style)
      const shrunk = gate()
      let waitingCount = 0
      served.memory.delay = () => {
        waitingCount++
        return shrunk.promise
      }
      const range = { offset: 4096, lengthBytes: 512 }
      const answers = [
        client.command(Command.TRIM, range),
        client.command(Command.WRITE_ZEROES, range),
        client.command(Command.WRITE_ZEROES, { ...range, flags: CommandFlag.NO_HOLE }),
        client.write({ offset: 4096, data: Buffer.alloc(512) }),
      ].map(errnoOf)
      await until(() => waitingCount === answers.length, 'all wait')
      served.memory.endBytes = 4096
      shrunk.open()
      t.same(await Promise.all(answers), ['EINVAL', 'ENOSPC', 'ENOSPC', 'ENOSPC'])
    },
  )

  t.test(`${style}: a read-only export refuses every write and consumes its payload`, async (t) => {
    const served = await startServer(t)
    served.memory.isReadOnly = true
    const client = await served.open(style)
    for (const lengthBytes of [1, 4096, 200_000]) {
      const write = client.write({ offset: 0, data: Buffer.alloc(lengthBytes, 0x25) })
      t.equal(await errnoOf(write), 'EPERM')
    }
    for (const command of [Command.TRIM, Command.WRITE_ZEROES]) {
      t.equal(await errnoOf(client.command(command, { lengthBytes: 1 })), 'EPERM')
    }
    t.same(await client.read({ offset: 0, lengthBytes: 4 }), Buffer.alloc(4))
  })

  t.test(
    `${style}: what an export throws or rejects is answered, and told to the embedder`,
    async (t) => {
      const served = await startServer(t, { sizeBytes: 256 * KiB })
      served.memory.content.fill(1)
      const client = await served.open(style)
      const disk = Object.assign(new Error('write failed'), { code: 'EDQUOT' })
      const rows = [
        [new RequestError('ENOSPC', 'pool full'), 'ENOSPC'],
        [disk, 'ENOSPC'],
        [Object.assign(new Error('x'), { code: 'EROFS' }), 'EPERM'],
        [new TypeError('a bug'), 'EIO'],
        ['a string', 'EIO'],
      ] as const
      const range = { offset: 0, lengthBytes: 100 }
      const calls: (() => Promise<unknown>)[] = [
        () => client.read(range),
        () => client.read({ offset: 0, lengthBytes: 200 * KiB }),
        () => client.write({ offset: 0, data: Buffer.alloc(100) }),
        () => client.write({ offset: 0, data: Buffer.alloc(200 * KiB) }),
        () => client.command(Command.FLUSH),
        () => client.command(Command.TRIM, range),
        () => client.command(Command.WRITE_ZEROES, range),
        () => client.command(Command.CACHE, range),
      ]
      let expected = 0
      for (const [thrown, errno] of rows) {
        for (const call of calls) {
          served.memory.fail = (made) => {
            if (made.command !== 'status') throw thrown
          }
          t.equal(await errnoOf(call()), errno)
          served.memory.fail = undefined
          served.memory.delay = (made) =>
            made.command === 'status'
              ? undefined
              : Promise.resolve().then(() => {
                  throw thrown
                })
          t.equal(await errnoOf(call()), errno)
          served.memory.delay = undefined
          expected += 2
        }
      }
      t.equal(served.failures.length, expected)
      t.equal(served.failures[0]?.error, rows[0][0])
      t.equal((await client.read(range)).length, 100)
      t.equal(served.server.usedBytes, 0)
    },
  )

  t.test(`${style}: replies come in the order in which the export settles`, async (t) => {
    const served = await startServer(t)
    served.memory.content.fill(7, 0, 64 * KiB)
    const gates = [gate(), gate(), gate(), gate()]
    served.memory.delay = (call) => gates[call.offset / 4096]?.promise
    const client = await served.open(style)
    const order: number[] = []
    const reads = gates.map(async (_, index) => {
      const data = await client.read({ offset: index * 4096, lengthBytes: 4096 })
      t.ok(data.equals(Buffer.alloc(4096, 7)))
      order.push(index)
    })
    const late = client.read({ offset: 32 * KiB, lengthBytes: 512 }).then(() => order.push(9))
    await inTime(late, 'a request that does not wait overtakes')
    for (const index of [2, 0, 3, 1]) {
      gates[index]?.open()
      await inTime(reads[index] ?? Promise.resolve(), `read ${index}`)
    }
    t.same(order, [9, 2, 0, 3, 1])
  })

  t.test(`${style}: DISC finishes what is in flight before the connection closes`, async (t) => {
    const served = await startServer(t)
    const wait = gate()
    served.memory.delay = () => wait.promise
    const client = await served.open(style)
    const write = client.write({ offset: 0, data: Buffer.from('last words') })
    const read = client.read({ offset: 4096, lengthBytes: 100 * KiB })
    const goodbye = client.disconnect()
    await until(() => served.server.counters().requests === 3, 'DISC arrived')
    t.equal(served.ends.length, 0)
    wait.open()
    await inTime(Promise.all([write, read, goodbye]), 'answers and the end')
    t.equal(served.memory.attachedCount, 0, 'the export is free when the client sees the end')
    await served.ended(1)
    t.match(served.ends, [{ reason: 'disconnect' }])
    t.equal(served.memory.content.toString('utf8', 0, 10), 'last words')
  })
}

t.test('a client that closes its side gets what it had asked for', async (t) => {
  const served = await startServer(t)
  const wait = gate()
  served.memory.delay = () => wait.promise
  const client = await served.open()
  const read = client.read({ offset: 0, lengthBytes: 4096 })
  client.stream.end()
  await until(() => served.server.counters().requests === 1, 'the request arrived')
  wait.open()
  t.equal((await inTime(read, 'the answer')).length, 4096)
  await served.ended(1)
  t.match(served.ends, [{ reason: 'end-of-stream' }])
})

t.test('a client that vanishes leaves nothing behind once its requests are over', async (t) => {
  const served = await startServer(t)
  const wait = gate()
  served.memory.delay = () => wait.promise
  const client = await served.open('structured')
  const requests = [
    client.read({ offset: 0, lengthBytes: 4096 }),
    client.read({ offset: 0, lengthBytes: 300 * KiB }),
    client.write({ offset: 0, data: Buffer.alloc(300 * KiB) }),
    client.command(Command.FLUSH),
  ]
  for (const request of requests) request.catch(() => {})
  await until(() => served.server.counters().requests === 4, 'the requests arrived')
  client.destroy()
  await client.closed
  t.equal(served.memory.attachedCount, 1, 'the export is in use until then')
  wait.open()
  await served.ended(1)
  t.equal(served.memory.attachedCount, 0)
  t.equal(served.server.usedBytes, 0)
})

t.test('an assertion that fails in an export is fatal and gets no reply', async (t) => {
  const served = await startServer(t)
  const client = await served.open('structured')
  const broken = new AssertionError({ message: 'law 2' })
  for (const isLate of [false, true]) {
    const victim = await served.open('structured')
    served.memory.fail = isLate
      ? undefined
      : () => {
          throw broken
        }
    served.memory.delay = isLate ? () => Promise.reject(broken) : undefined
    await t.rejects(inTime(victim.read({ offset: 0, lengthBytes: 512 }), 'the end'), {
      name: 'ConnectionEnded',
    })
  }
  served.memory.fail = undefined
  served.memory.delay = undefined
  t.same(served.fatal, [broken, broken])
  t.same(served.failures, [])
  await served.ended(2)
  t.ok(served.ends.every(({ reason }) => reason === 'failed'))
  t.equal((await client.read({ offset: 0, lengthBytes: 512 })).length, 512)
})

t.test('without a hook a failed assertion is thrown where nobody catches it', async (t) => {
  const { reportFatal } = await import('../../nbd/hooks.js')
  const queued: (() => void)[] = []
  const original = globalThis.queueMicrotask
  globalThis.queueMicrotask = (callback) => void queued.push(callback)
  try {
    reportFatal({}, new AssertionError({ message: 'nobody listens' }))
  } finally {
    globalThis.queueMicrotask = original
  }
  t.throws(() => queued[0]?.(), { message: 'nobody listens' })
})

t.test('a request is held against the size of the moment', async (t) => {
  const served = await startServer(t)
  const client = await served.open()
  Object.defineProperty(served.memory, 'sizeBytes', { value: 4096 })
  t.equal(await errnoOf(client.read({ offset: 4096, lengthBytes: 1 })), 'EINVAL')
  t.equal((await client.read({ offset: 4095, lengthBytes: 1 })).length, 1)
})

t.test('a minimum block size is enforced and always told', async (t) => {
  const served = await startServer(t)
  served.memory.blockSizes = { minimum: 512, preferred: 4096, maximum: 64 * KiB }
  const client = await served.connect()
  t.equal((await client.info('memory')).get(3)?.readUInt32BE(), 512)
  await client.go('memory')
  for (const range of [
    { offset: 1, lengthBytes: 512 },
    { offset: 512, lengthBytes: 511 },
  ]) {
    t.equal(await errnoOf(client.read(range)), 'EINVAL')
  }
  t.equal(await errnoOf(client.read({ offset: 0, lengthBytes: 128 * KiB })), 'EINVAL')
  t.equal((await client.read({ offset: 512, lengthBytes: 512 })).length, 512)
  client.destroy()
})
