// Each command over a real socket, in each style of reply.
import t from 'tap'
import { ChunkType, Command, CommandFlag, OptionCode } from '../../nbd/constants.js'
import { startServer } from '../support/nbd-server.js'

const KiB = 1024

for (const style of ['simple', 'structured', 'extended'] as const) {
  t.test(`${style}: what was written is read back, at any size and offset`, async (t) => {
    const served = await startServer(t, { sizeBytes: 4096 * KiB })
    const client = await served.open(style)
    for (const lengthBytes of [1, 511, 512, 4096, 32 * KiB, 32 * KiB + 1, 70_000, 1024 * KiB]) {
      const offset = 4096 + lengthBytes
      const data = Buffer.alloc(lengthBytes, lengthBytes % 251 || 7)
      await client.write({ offset, data })
      t.same(await client.read({ offset, lengthBytes }), data, `${lengthBytes} bytes`)
    }
    await client.disconnect()
    await served.ended(1)
    t.equal(served.server.usedBytes, 0)
    t.match(served.ends, [{ reason: 'disconnect' }])
    t.equal(served.memory.attachedCount, 0)
  })

  t.test(`${style}: FLUSH, TRIM, CACHE and WRITE_ZEROES reach the export`, async (t) => {
    const served = await startServer(t)
    const client = await served.open(style)
    const range = { offset: 8192, lengthBytes: 4096 }
    await client.write({ offset: 8192, data: Buffer.alloc(4096, 5), fua: true })
    t.equal(served.memory.fuaCount, 1)
    await client.command(Command.FLUSH)
    t.equal(served.memory.flushCount, 1)
    await client.command(Command.CACHE, range)
    await client.command(Command.TRIM, range)
    t.same(await client.read(range), Buffer.alloc(4096))
    await client.write({ offset: 8192, data: Buffer.alloc(4096, 5) })
    const { NO_HOLE, FAST_ZERO, FUA } = CommandFlag
    await client.command(Command.WRITE_ZEROES, { ...range, flags: NO_HOLE | FAST_ZERO | FUA })
    t.same(await client.read(range), Buffer.alloc(4096))
    t.equal(served.memory.fuaCount, 2)
  })

  t.test(`${style}: requests of no bytes succeed and do nothing`, async (t) => {
    const served = await startServer(t)
    served.memory.fail = () => t.fail('the export was called')
    const client = await served.open(style)
    t.same(await client.read({ offset: 0, lengthBytes: 0 }), Buffer.alloc(0))
    await client.write({ offset: 1024 * KiB, data: Buffer.alloc(0) })
    for (const command of [Command.TRIM, Command.WRITE_ZEROES, Command.CACHE]) {
      await client.command(command, { offset: 5 })
    }
  })

  t.test(`${style}: a thousand requests sent at once are all answered`, async (t) => {
    const served = await startServer(t)
    const client = await served.open(style)
    const writes = Array.from({ length: 500 }, (_, index) =>
      client.write({ offset: index * 512, data: Buffer.alloc(512, index) }),
    )
    await Promise.all(writes)
    const reads = Array.from({ length: 500 }, (_, index) =>
      client.read({ offset: index * 512, lengthBytes: 512 }),
    )
    for (const [index, data] of (await Promise.all(reads)).entries()) {
      t.ok(data.equals(Buffer.alloc(512, index)))
    }
    t.equal(served.server.counters().requests, 1000)
    t.equal(served.server.counters().writtenBytes, 500 * 512)
  })
}

for (const style of ['structured', 'extended'] as const) {
  t.test(`${style}: large holes are told, not sent, unless DF forbids it`, async (t) => {
    const served = await startServer(t, { sizeBytes: 512 * KiB })
    const client = await served.open(style)
    served.memory.content.fill(1, 100 * KiB, 104 * KiB)
    served.memory.content.fill(2, 300 * KiB, 304 * KiB)
    const range = { offset: 0, lengthBytes: 512 * KiB }
    const chunks = await client.command(Command.READ, range)
    const types = chunks.map(({ type }) => type)
    const { OFFSET_HOLE: hole, OFFSET_DATA: data } = ChunkType
    t.same(types, [hole, data, hole, data, hole])
    t.ok((await client.read(range)).equals(served.memory.content))
    const whole = await client.command(Command.READ, { ...range, flags: CommandFlag.DF })
    t.same(
      whole.map(({ type }) => type),
      [data],
    )
    const small = await client.command(Command.READ, { offset: 0, lengthBytes: 4096 })
    t.same(
      small.map(({ type }) => type),
      [data],
    )
    const nothing = await client.command(Command.READ, { offset: 128 * KiB, lengthBytes: 64 * KiB })
    t.same(
      nothing.map(({ type }) => type),
      [hole],
    )
  })

  t.test(`${style}: block status answers one chunk for each selected context`, async (t) => {
    const served = await startServer(t, { sizeBytes: 64 * KiB })
    served.memory.contexts = ['base:allocation', 'x-test:odd', 'x-test:other']
    served.memory.content.fill(3, 4096, 8192)
    const client = await served.connect()
    await (style === 'structured' ? client.negotiateStructured() : client.negotiateExtended())
    const wanted = ['base:allocation', 'x-test:odd', 'x-unknown:a']
    const selected = await client.metaContexts(OptionCode.SET_META_CONTEXT, 'memory', wanted)
    t.same(
      selected.map(({ name }) => name),
      ['base:allocation', 'x-test:odd'],
    )
    await client.go('memory')
    const range = { offset: 0, lengthBytes: 64 * KiB }
    const statuses = extentsOf(style, await client.command(Command.BLOCK_STATUS, range))
    t.same(statuses, [
      {
        id: selected[0]?.id,
        extents: [
          [4096, 3],
          [4096, 0],
          [57344, 3],
        ],
      },
      {
        id: selected[1]?.id,
        extents: [
          [4096, 0],
          [4096, 1],
          [57344, 0],
        ],
      },
    ])
    const one = await client.command(Command.BLOCK_STATUS, {
      offset: 5000,
      lengthBytes: 100,
      flags: CommandFlag.REQ_ONE,
    })
    t.same(
      extentsOf(style, one).map(({ extents }) => extents),
      [[[100, 0]], [[100, 1]]],
    )
    client.destroy()
  })
}

t.test('extended: a payload selects contexts and length of a block status', async (t) => {
  const served = await startServer(t, { sizeBytes: 64 * KiB })
  served.memory.contexts = ['base:allocation', 'x-test:odd']
  const client = await served.connect()
  await client.negotiateExtended()
  const selected = await client.metaContexts(
    OptionCode.SET_META_CONTEXT,
    'memory',
    served.memory.contexts,
  )
  await client.go('memory')
  const ask = (lengthBytes: bigint, ids: readonly number[]) => {
    const payload = Buffer.alloc(8 + 4 * ids.length)
    payload.writeBigUInt64BE(lengthBytes)
    for (const [index, id] of ids.entries()) payload.writeUInt32BE(id, 8 + 4 * index)
    const flags = CommandFlag.PAYLOAD_LEN
    return client.request({ command: Command.BLOCK_STATUS, flags, payload })
  }
  const id = selected[1]?.id ?? 0
  const { chunks } = await ask(4096n, [id])
  t.same(extentsOf('extended', chunks), [{ id, extents: [[4096, 0]] }])
  t.same(
    (await ask(4096n, [])).chunks.map(({ type }) => type),
    [ChunkType.NONE],
  )
  t.match(await ask(4096n, [id, id]), { error: { errno: 'EINVAL' } })
  t.match(await ask(4096n, [77]), { error: { errno: 'EINVAL' } })
  t.match(await ask(0n, [id]), { error: { errno: 'EINVAL' } })
  t.match(await ask(2n ** 64n - 1n, [id]), { error: { errno: 'EINVAL' } })
  t.match(await ask(4096n, [id, id, id]), { error: { errno: 'EINVAL' } }, 'more than selected')
  t.same(await client.read({ offset: 0, lengthBytes: 16 }), Buffer.alloc(16))
  client.destroy()
})

t.test('extended: one request zeroes more than 32 bits can say', async (t) => {
  const served = await startServer(t, { sizeBytes: 4096 })
  Object.defineProperty(served.memory, 'sizeBytes', { value: 2 ** 40 })
  const calls: number[] = []
  served.memory.delay = (call) => {
    if (call.command === 'zero') calls.push(call.lengthBytes)
    return undefined
  }
  const client = await served.open('extended')
  await client.command(Command.WRITE_ZEROES, { offset: 0, lengthBytes: 2 ** 40 })
  await client.command(Command.TRIM, { offset: 2 ** 39, lengthBytes: 2 ** 33 + 1 })
  t.same(calls, [2 ** 40, 2 ** 33 + 1])
})

function extentsOf(
  style: 'structured' | 'extended',
  chunks: readonly { readonly type: number; readonly payload: Buffer }[],
): { id: number; extents: number[][] }[] {
  return chunks.map(({ type, payload }) => {
    const isExtended = type === ChunkType.BLOCK_STATUS_EXT
    if (isExtended !== (style === 'extended')) throw new Error(`chunk type ${type}`)
    const extents: number[][] = []
    const step = isExtended ? 16 : 8
    for (let at = isExtended ? 8 : 4; at < payload.length; at += step) {
      extents.push(
        isExtended
          ? [Number(payload.readBigUInt64BE(at)), Number(payload.readBigUInt64BE(at + 8))]
          : [payload.readUInt32BE(at), payload.readUInt32BE(at + 4)],
      )
    }
    return { id: payload.readUInt32BE(0), extents }
  })
}
