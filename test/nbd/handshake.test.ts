// The handshake over a real socket: every option's answers, what they refuse, and what they leave behind.
import t from 'tap'
import type { NbdClient } from '../../nbd/client.js'
import { ClientFlag, Info, OptionCode, OptionReply, TransmissionFlag } from '../../nbd/constants.js'
import { RequestError } from '../../nbd/errors.js'
import { OptionHeader } from '../../nbd/messages.js'
import { contextBody, infoBody } from '../../nbd/option-bodies.js'
import { ManualTimers } from '../support/manual-timers.js'
import { MemoryExport } from '../support/memory-export.js'
import { assertServes, inTime, startServer } from '../support/nbd-server.js'

t.test('LIST names every export with its description', async (t) => {
  const others = [new MemoryExport({ name: 'b', description: 'second ☃', sizeBytes: 512 })]
  const served = await startServer(t, { others })
  const client = await served.connect()
  t.same(await client.list(), [
    { name: 'memory', description: '' },
    { name: 'b', description: 'second ☃' },
  ])
  const [refusal] = await client.option(OptionCode.LIST, Buffer.from('x'))
  t.equal(refusal?.type, OptionReply.ERR_INVALID)
  client.destroy()
})

t.test('INFO and GO give what was asked for, and the export always', async (t) => {
  const memory = new MemoryExport({ name: 'm', description: 'text', sizeBytes: 8192 })
  const served = await startServer(t, { memory })
  const client = await served.connect()
  const bare = await client.info('m')
  t.same([...bare.keys()], [Info.EXPORT])
  t.equal(bare.get(Info.EXPORT)?.readBigUInt64BE(), 8192n)
  const all = await client.info('', [Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE, 999])
  t.equal(all.get(Info.NAME)?.toString(), 'm')
  t.equal(all.get(Info.DESCRIPTION)?.toString(), 'text')
  t.equal(all.get(Info.BLOCK_SIZE)?.toString('hex'), '00000001' + '00001000' + '02000000')
  t.same([...(await client.go('m', [Info.NAME])).keys()].sort(), [Info.EXPORT, Info.NAME])
  t.equal((await client.read({ offset: 0, lengthBytes: 4 })).length, 4)
  await client.disconnect()
})

t.test('transmission flags follow what was negotiated and the export', async (t) => {
  const served = await startServer(t)
  const flagsOf = async (prepare: (client: NbdClient) => Promise<unknown>): Promise<number> => {
    const client = await served.connect()
    await prepare(client)
    const found = (await client.info('memory')).get(Info.EXPORT)
    client.destroy()
    return found?.readUInt16BE(8) ?? 0
  }
  const { SEND_DF, BLOCK_STATUS_PAYLOAD, READ_ONLY, SEND_TRIM } = TransmissionFlag
  const simple = await flagsOf(async () => {})
  t.equal(simple, 0xd6d)
  t.equal(await flagsOf((client) => client.negotiateStructured()), simple | SEND_DF)
  t.equal(await flagsOf((client) => client.negotiateExtended()), simple | SEND_DF)
  const withContext = async (client: NbdClient): Promise<void> => {
    await client.negotiateExtended()
    await client.metaContexts(OptionCode.SET_META_CONTEXT, 'memory', ['base:allocation'])
  }
  t.equal(await flagsOf(withContext), simple | SEND_DF | BLOCK_STATUS_PAYLOAD)
  served.memory.isReadOnly = true
  const readOnly = await flagsOf(async () => {})
  t.equal(readOnly & READ_ONLY, READ_ONLY)
  t.equal(readOnly & SEND_TRIM, 0)
})

t.test('EXPORT_NAME enters transmission, with padding unless NO_ZEROES was said', async (t) => {
  const served = await startServer(t)
  for (const clientFlags of [ClientFlag.FIXED_NEWSTYLE, 3, 0]) {
    const client = await served.connect({ clientFlags })
    const reply = await inTime(client.exportName('memory'), 'EXPORT_NAME')
    t.equal(reply.sizeBytes, 1024 * 1024)
    await client.write({ offset: 0, data: Buffer.from([clientFlags]) })
    t.equal((await client.read({ offset: 0, lengthBytes: 1 }))[0], clientFlags)
    await client.disconnect()
  }
})

t.test('EXPORT_NAME of nothing ends the connection, for there is no other answer', async (t) => {
  const served = await startServer(t)
  for (const name of ['missing', 'with\0nul', 'x'.repeat(4097)]) {
    const client = await served.connect()
    await t.rejects(inTime(client.exportName(name), 'the end'))
    await client.closed
  }
  await served.ended(3)
  t.ok(served.ends.every(({ reason }) => reason === 'protocol-error'))
})

t.test('a list of exports may say itself why a name is none of them', async (t) => {
  const served = await startServer(t, { explainMissing: (name) => `"${name}": name another one` })
  const client = await served.connect()
  for (const option of [OptionCode.INFO, OptionCode.GO]) {
    const [refusal] = await client.option(option, infoBody('other'))
    t.equal(refusal?.type, OptionReply.ERR_UNKNOWN)
    t.equal(refusal?.data.toString(), '"other": name another one')
  }
  client.destroy()
  const old = await served.connect()
  await t.rejects(inTime(old.exportName('old'), 'the end'))
  await served.ended(2)
  t.match(served.ends.at(-1), { reason: 'protocol-error', message: '"old": name another one' })
})

t.test('an unknown export is refused by name, in a text that does not grow with it', async (t) => {
  const served = await startServer(t)
  const client = await served.connect()
  for (const option of [OptionCode.INFO, OptionCode.GO]) {
    for (const name of ['other', 'é'.repeat(2048)]) {
      const [refusal] = await client.option(option, infoBody(name))
      t.equal(refusal?.type, OptionReply.ERR_UNKNOWN)
      t.ok((refusal?.data.length ?? 0) <= 256, `${refusal?.data}`)
    }
  }
  await client.go('memory')
  client.destroy()
})

t.test('unknown options are unsupported and the handshake goes on', async (t) => {
  const served = await startServer(t)
  const client = await served.connect()
  for (const option of [0, 4, 12, 1000, 0xffff_ffff]) {
    const [refusal] = await client.option(option, Buffer.alloc(option % 100))
    t.equal(refusal?.type, OptionReply.ERR_UNSUP)
  }
  await client.go('memory')
  client.destroy()
})

t.test('ABORT is acknowledged, whatever it carries, and ends the connection', async (t) => {
  const served = await startServer(t)
  const client = await served.connect()
  t.same(await client.expectAck(OptionCode.ABORT, Buffer.from('bye')), [])
  await t.rejects(client.reader.read(1), { name: 'ConnectionEnded' })
  client.stream.end()
  await served.ended(1)
  t.match(served.ends, [{ reason: 'disconnect' }])
})

t.test('extended headers take precedence over structured replies', async (t) => {
  const served = await startServer(t)
  const client = await served.connect()
  await client.negotiateStructured()
  await client.negotiateStructured()
  await client.negotiateExtended()
  const [structured] = await client.option(OptionCode.STRUCTURED_REPLY)
  t.equal(structured?.type, OptionReply.ERR_EXT_HEADER_REQD)
  const [again] = await client.option(OptionCode.EXTENDED_HEADERS)
  t.equal(again?.type, OptionReply.ERR_INVALID)
  for (const option of [OptionCode.STRUCTURED_REPLY, OptionCode.EXTENDED_HEADERS]) {
    const [withData] = await client.option(option, Buffer.from('x'))
    t.equal(withData?.type, OptionReply.ERR_INVALID)
  }
  await t.rejects(inTime(client.exportName('memory'), 'the end'))
  await served.ended(1)
  t.match(served.ends, [{ message: 'EXPORT_NAME after EXTENDED_HEADERS' }])
})

t.test(
  'LIST_META_CONTEXT answers wildcards, SET_META_CONTEXT takes exact names only',
  async (t) => {
    const served = await startServer(t)
    const contexts = ['base:allocation', 'x-test:a', 'x-test:b']
    served.memory.contexts = contexts
    const client = await served.connect()
    await client.negotiateStructured()
    const { LIST_META_CONTEXT: list, SET_META_CONTEXT: set } = OptionCode
    const names = async (option: typeof list | typeof set, queries: string[]): Promise<string[]> =>
      (await client.metaContexts(option, 'memory', queries)).map(({ name }) => name)
    t.same(await names(list, []), contexts)
    t.same(await names(list, ['x-test:', 'other:thing']), ['x-test:a', 'x-test:b'])
    t.same(await names(list, ['base:allocation', 'base:']), ['base:allocation'])
    t.same(await names(set, ['x-test:', 'base:', 'x-test:b', 'x-test:b']), ['x-test:b'])
    t.same(await names(set, []), [])
    client.destroy()
  },
)

t.test('meta contexts need structured replies, a known export, and few queries', async (t) => {
  const served = await startServer(t, { limits: { contextCountMax: 1 } })
  served.memory.contexts = ['base:allocation', 'x-test:a']
  const client = await served.connect()
  const set = OptionCode.SET_META_CONTEXT
  const typeOf = async (body: Buffer): Promise<number | undefined> =>
    (await client.option(set, body)).at(-1)?.type
  t.equal(await typeOf(contextBody('memory', [])), OptionReply.ERR_INVALID)
  await client.negotiateStructured()
  t.equal(await typeOf(contextBody('nobody', [])), OptionReply.ERR_UNKNOWN)
  const many = Array.from({ length: 65 }, () => 'base:allocation')
  t.equal(await typeOf(contextBody('memory', many)), OptionReply.ERR_TOO_BIG)
  t.equal(
    await typeOf(contextBody('memory', ['base:allocation', 'x-test:a'])),
    OptionReply.ERR_TOO_BIG,
  )
  t.equal(await typeOf(contextBody('memory', ['x-test:a'])), OptionReply.ACK)
  client.destroy()
})

t.test(
  'contexts are good for the export they were selected on, and until the next try',
  async (t) => {
    const others = [new MemoryExport({ name: 'b', sizeBytes: 4096 })]
    const served = await startServer(t, { others })
    const status = { command: 7, offset: 0, lengthBytes: 512 }
    const tryWith = async (name: string, spoil: (client: NbdClient) => Promise<unknown>) => {
      const client = await served.connect()
      await client.negotiateStructured()
      await client.metaContexts(OptionCode.SET_META_CONTEXT, 'memory', ['base:allocation'])
      await spoil(client)
      await client.go(name)
      const { error } = await client.request(status)
      client.destroy()
      return error?.errno
    }
    const nothing = async (): Promise<void> => {}
    t.equal(await tryWith('memory', nothing), undefined)
    t.equal(await tryWith('b', nothing), 'EINVAL')
    const fails = (client: NbdClient) =>
      client.option(OptionCode.SET_META_CONTEXT, contextBody('nobody', []))
    t.equal(await tryWith('memory', fails), 'EINVAL')
  },
)

t.test('an export that takes no more sessions refuses GO with its reason', async (t) => {
  const served = await startServer(t)
  const client = await served.connect()
  const before = served.memory.attachedCount
  Object.defineProperty(served.memory, 'attachedCount', {
    configurable: true,
    get: () => before,
    set: () => {
      throw new RequestError('EPERM', 'full')
    },
  })
  const [refusal] = await client.option(OptionCode.GO, infoBody('memory'))
  t.match(refusal, { type: OptionReply.ERR_POLICY })
  t.equal(refusal?.data.toString(), 'full')
  client.destroy()
  Object.defineProperty(served.memory, 'attachedCount', { value: 0, writable: true })
})

t.test('STARTTLS is refused by policy while no TLS is configured', async (t) => {
  const served = await startServer(t)
  const client = await served.connect()
  const [refusal] = await client.option(OptionCode.STARTTLS)
  t.equal(refusal?.type, OptionReply.ERR_POLICY)
  const [invalid] = await client.option(OptionCode.STARTTLS, Buffer.from('x'))
  t.equal(invalid?.type, OptionReply.ERR_INVALID)
  await client.go('memory')
  client.destroy()
})

t.test('STARTTLS forgets all that was negotiated, and cannot be had twice', async (t) => {
  const tls = { isRequired: false, start: async <T>(stream: T): Promise<T> => stream }
  const served = await startServer(t, { tls })
  const client = await served.connect()
  await client.negotiateStructured()
  await client.metaContexts(OptionCode.SET_META_CONTEXT, 'memory', ['base:allocation'])
  await client.expectAck(OptionCode.STARTTLS)
  const [again] = await client.option(OptionCode.STARTTLS)
  t.equal(again?.type, OptionReply.ERR_INVALID)
  const [set] = await client.option(OptionCode.SET_META_CONTEXT, contextBody('memory', []))
  t.equal(set?.type, OptionReply.ERR_INVALID, 'structured replies are forgotten')
  await client.negotiateStructured()
  await client.go('memory')
  t.equal((await client.request({ command: 7, lengthBytes: 512 })).error?.errno, 'EINVAL')
  client.destroy()
})

t.test('bytes in the clear behind STARTTLS end the connection', async (t) => {
  let starts = 0
  const start = async <T>(stream: T): Promise<T> => {
    starts++
    return stream
  }
  const served = await startServer(t, { tls: { isRequired: false, start } })
  const client = await served.connect()
  const startTls = OptionHeader.encode({ option: OptionCode.STARTTLS, lengthBytes: 0 })
  const list = OptionHeader.encode({ option: OptionCode.LIST, lengthBytes: 0 })
  client.send(Buffer.concat([startTls, list]))
  await served.ended(1)
  t.match(served.ends, [{ reason: 'protocol-error', message: 'bytes behind STARTTLS' }])
  t.equal(starts, 0)
  client.destroy()
  await assertServes(served)
})

t.test('where TLS is required every other option is refused until it is on', async (t) => {
  const tls = { isRequired: true, start: async <T>(stream: T): Promise<T> => stream }
  const served = await startServer(t, { tls })
  const client = await served.connect()
  for (const option of [OptionCode.LIST, OptionCode.GO, OptionCode.STRUCTURED_REPLY, 77]) {
    const [refusal] = await client.option(option)
    t.equal(refusal?.type, OptionReply.ERR_TLS_REQD)
  }
  await client.expectAck(OptionCode.STARTTLS)
  await client.go('memory')
  client.destroy()
  const old = await served.connect()
  await t.rejects(inTime(old.exportName('memory'), 'the end'))
})

t.test('a private option answers, and may take the connection over', async (t) => {
  const privateOption = {
    option: 0x4c53,
    name: 'TEST',
    bodyBytesMax: 16,
    handle: async (context: import('../../nbd/handshake.js').PrivateOptionContext) => {
      await context.reply(OptionReply.ACK, Buffer.from(`hello ${context.body}`))
      if (context.body.toString() !== 'over') return
      const { stream, received } = context.takeOver()
      stream.write(Buffer.concat([Buffer.from('mine:'), ...received]))
      stream.on('data', (data: Buffer) => stream.write(data))
      stream.on('end', () => stream.end())
      stream.resume()
    },
  }
  const served = await startServer(t, { privateOptions: [privateOption] })
  const client = await served.connect()
  const [answer] = await client.option(0x4c53, Buffer.from('you'))
  t.equal(answer?.data.toString(), 'hello you')
  const [tooBig] = await client.option(0x4c53, Buffer.alloc(17))
  t.equal(tooBig?.type, OptionReply.ERR_TOO_BIG)
  await client.option(0x4c53, Buffer.from('over'))
  t.equal((await client.reader.read(5)).toString(), 'mine:')
  client.send(Buffer.from('echo'))
  t.equal((await client.reader.read(4)).toString(), 'echo')
  t.equal(served.server.counters().handshakes, 0)
  await served.ended(1)
  t.match(served.ends, [{ reason: 'taken' }], 'it has left the server')
  t.equal(served.server.counters().connections, 0)
  await inTime(served.server.stop(), 'the server stops')
  client.send(Buffer.from('more'))
  t.equal((await client.reader.read(4)).toString(), 'more', 'and outlives it')
  client.stream.end()
  await inTime(client.closed, 'the end')
})

t.test('what came with a private option and before its owner listens is not lost', async (t) => {
  let owned: (() => void) | undefined
  const conversations: object[] = []
  const privateOption = {
    option: 0x4c53,
    name: 'TEST',
    bodyBytesMax: 16,
    handle: async (context: import('../../nbd/handshake.js').PrivateOptionContext) => {
      conversations.push(context.conversation)
      await context.reply(OptionReply.ACK)
      if (context.body.length === 0) return
      const { stream, received } = context.takeOver()
      owned = () => {
        stream.unshift(Buffer.concat(received))
        stream.on('data', (data: Buffer) => stream.write(data)).on('end', () => stream.end())
        stream.resume()
      }
    },
  }
  const served = await startServer(t, { privateOptions: [privateOption] })
  const client = await served.connect()
  await client.option(0x4c53)
  const take = OptionHeader.encode({ option: 0x4c53, lengthBytes: 1 })
  client.send(Buffer.concat([take, Buffer.from('!behind')]))
  await client.readOptionReply(0x4c53)
  await served.ended(1)
  client.send(Buffer.from(' and later'))
  // The bytes are in this process's socket by now, or will be: the owner is late either way.
  await new Promise((resolve) => setImmediate(resolve))
  owned?.()
  t.equal((await inTime(client.reader.read(16), 'all of it')).toString(), 'behind and later')
  t.equal(conversations.length, 2)
  t.equal(conversations[0], conversations[1], 'both options know that they are of one connection')
  client.stream.end()
  await inTime(client.closed, 'the end')
})

t.test('whoever lists the exports may ask for each of them', async (t) => {
  const others = Array.from(
    { length: 20 },
    (_, index) => new MemoryExport({ name: `e${index}`, sizeBytes: 512 }),
  )
  const served = await startServer(t, {
    others,
    limits: { optionCountMax: 3, optionsPerExportMax: 2 },
  })
  const client = await served.connect()
  const names = (await client.list()).map(({ name }) => name)
  t.equal(names.length, 21)
  for (const name of [...names, ...names]) await client.info(name)
  await client.option(77)
  await client.option(77)
  await served.ended(1)
  t.match(served.ends[0], { reason: 'protocol-error', message: 'more than 45 options' })
  client.destroy()
})

t.test('who lists has more time, a second for each export, and no more', async (t) => {
  const others = Array.from(
    { length: 20 },
    (_, index) => new MemoryExport({ name: `e${index}`, sizeBytes: 512 }),
  )
  const timers = new ManualTimers()
  const served = await startServer(t, { others, timers, limits: { handshakeTimeoutMs: 10_000 } })
  const plain = await served.connect()
  const lister = await served.connect()
  t.equal((await lister.list()).length, 21)
  timers.advance(10_000)
  await served.ended(1)
  t.match(served.ends[0], { reason: 'timeout' })
  await plain.closed
  timers.advance(20_999)
  await lister.info('e19')
  t.equal(served.ends.length, 1)
  timers.advance(1)
  await served.ended(2)
  t.match(served.ends[1], { reason: 'timeout', message: 'the handshake took too long' })
  t.equal(timers.count, 0, 'no timer is left')
})

t.test('options above their number and a slow handshake end the connection', async (t) => {
  const served = await startServer(t, { limits: { optionCountMax: 3, handshakeTimeoutMs: 50 } })
  const client = await served.connect()
  for (let count = 0; count < 3; count++) await client.option(77)
  await served.ended(1)
  t.match(served.ends[0], { reason: 'protocol-error', message: 'more than 3 options' })
  const slow = await served.connect()
  await served.ended(2)
  t.match(served.ends[1], { reason: 'timeout' })
  await slow.closed
  client.destroy()
})
