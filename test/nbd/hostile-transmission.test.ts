// Input that broke other NBD servers, in transmission, over real sockets. After each the server still serves a good client.
import { once } from 'node:events'
import t, { type Test } from 'tap'
import { NbdClient } from '../../nbd/client.js'
import { Command, CommandFlag, OptionCode } from '../../nbd/constants.js'
import { assertServes, inTime, startServer, type TestServer, until } from '../support/nbd-server.js'

let badInputs = 0
const styles = ['simple', 'structured', 'extended'] as const
const u32Lengths = [0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 32 * 1024 * 1024 + 1]
const u64s = [2n ** 31n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]

function assertClean(t: Test, served: TestServer): void {
  t.same(served.fatal, [])
  t.same(
    served.ends.filter(({ reason }) => reason === 'failed'),
    [],
    'no bug was met',
  )
  t.equal(served.memory.attachedCount, 0)
  t.equal(served.server.usedBytes, 0)
}

for (const style of styles) {
  t.test(`${style}: lengths and offsets at the edges of their integers`, async (t) => {
    const served = await startServer(t)
    const client = await served.open(style)
    const lengths: (number | bigint)[] = style === 'extended' ? u64s : u32Lengths
    for (const command of [0, 3, 4, 5, 6, 7]) {
      for (const lengthBytes of [...lengths, 1]) {
        for (const offset of [0n, 1n, 2n ** 20n, ...u64s]) {
          if (lengthBytes === 1 && offset < 2n) continue
          badInputs++
          const { error } = await inTime(
            client.request({ command, lengthBytes, offset }),
            'an answer',
          )
          t.ok(error !== undefined, `${command} ${offset} ${lengthBytes}`)
        }
      }
    }
    await client.disconnect()
    await assertServes(served)
    await served.ended(2)
    assertClean(t, served)
  })

  t.test(`${style}: every command and flag there could be`, async (t) => {
    const served = await startServer(t)
    const client = await served.open(style)
    for (let command = 0; command < 20; command++) {
      if (command === Command.DISC) continue
      for (let bit = 0; bit < 16; bit++) {
        const flags = 1 << bit
        if (flags === CommandFlag.PAYLOAD_LEN || (command === 1 && style !== 'extended')) continue
        badInputs++
        await inTime(client.request({ command, flags, lengthBytes: 0 }), 'an answer')
      }
    }
    t.equal((await client.read({ offset: 0, lengthBytes: 8 })).length, 8)
    await client.disconnect()
    await assertServes(served)
    await served.ended(2)
    assertClean(t, served)
  })

  t.test(
    `${style}: FIN and RST after every byte of a write, and at places of a large one`,
    async (t) => {
      const served = await startServer(t, { limits: { lingerTimeoutMs: 100 } })
      const client = await served.open(style)
      const flags = style === 'extended' ? CommandFlag.PAYLOAD_LEN : 0
      const small = client.encodeRequest({ command: Command.WRITE, flags, lengthBytes: 16 })
      const large = client.encodeRequest({
        command: Command.WRITE,
        flags,
        lengthBytes: 1024 * 1024,
      })
      const inputs: Buffer[] = []
      const whole = Buffer.concat([small, Buffer.alloc(16, 5)])
      for (let end = 0; end <= whole.length; end++) inputs.push(whole.subarray(0, end))
      for (const length of [1, 65_535, 65_536, 300_000, 1024 * 1024 - 1]) {
        inputs.push(Buffer.concat([whole, large, Buffer.alloc(length)]))
      }
      for (const input of inputs) {
        for (const end of ['fin', 'rst'] as const) {
          badInputs++
          const victim = await served.open(style)
          victim.stream.write(input)
          const socket = victim.stream as import('node:net').Socket
          if (end === 'fin') socket.end()
          else socket.resetAndDestroy()
          await inTime(victim.closed, 'the end')
        }
      }
      await client.disconnect()
      await until(() => served.server.counters().connections === 0, 'all are gone')
      await assertServes(served)
      await until(() => served.server.counters().connections === 0, 'all are gone')
      assertClean(t, served)
    },
  )

  t.test(`${style}: a wrong magic ends the connection, wherever it comes`, async (t) => {
    const served = await startServer(t)
    const noise = [
      Buffer.alloc(32),
      Buffer.alloc(32, 0xff),
      Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'),
      Buffer.from('49484156454f50540000000300000000'.repeat(3), 'hex'),
      Buffer.from('67446698'.repeat(12), 'hex'),
      Buffer.from(style === 'extended' ? '25609513'.repeat(12) : '21e41c71'.repeat(12), 'hex'),
    ]
    for (const bytes of noise) {
      for (const hasServed of [false, true]) {
        badInputs++
        const victim = await served.open(style)
        if (hasServed) await victim.write({ offset: 0, data: Buffer.alloc(5) })
        victim.send(bytes)
        await inTime(victim.closed, 'the end')
      }
      await assertServes(served)
    }
    t.equal(served.ends.filter(({ reason }) => reason === 'protocol-error').length, 12)
  })

  t.test(`${style}: a wrong magic is noticed when it is there, and not before`, async (t) => {
    const served = await startServer(t)
    const client = await served.open(style)
    const goodbye = client.encodeRequest({ command: Command.DISC })
    const wrong = Buffer.from(goodbye)
    wrong.writeUInt32BE(style === 'extended' ? 0x25609513 : 0x21e41c71)
    for (const lengthBytes of [4, 5, 27, 28, 31]) {
      for (const hasServed of [false, true]) {
        if (lengthBytes > wrong.length) continue
        badInputs++
        const victim = await served.open(style)
        if (hasServed) await victim.command(Command.FLUSH)
        victim.send(wrong.subarray(0, lengthBytes))
        await inTime(victim.closed, `the end behind ${lengthBytes} bytes`)
      }
    }
    const message = style === 'extended' ? /begins with 25609513/ : /begins with 21e41c71/
    const strangerCount = served.ends.length
    t.ok(strangerCount >= 6)
    for (const end of served.ends) t.match(end, { reason: 'protocol-error', message })
    // What is right so far is waited for: a byte in each turn.
    for (const byte of goodbye) {
      client.send(Buffer.of(byte))
      await assertServes(served)
    }
    await served.ended(strangerCount + goodbye.length + 1)
    for (const end of served.ends.slice(strangerCount)) t.match(end, { reason: 'disconnect' })
  })

  t.test(`${style}: bytes behind DISC are not requests`, async (t) => {
    const served = await startServer(t)
    const client = await served.open(style)
    const write = client.encodeRequest({
      command: Command.WRITE,
      lengthBytes: 4,
      flags: style === 'extended' ? CommandFlag.PAYLOAD_LEN : 0,
    })
    badInputs++
    client.send(
      Buffer.concat([client.encodeRequest({ command: Command.DISC }), write, Buffer.from('late')]),
    )
    await inTime(client.closed, 'the end')
    await served.ended(1)
    t.match(served.ends, [{ reason: 'disconnect' }])
    t.equal(served.memory.content[0], 0)
    assertClean(t, served)
  })
}

t.test('writes that say they are huge are consumed without being kept', async (t) => {
  const served = await startServer(t)
  for (const lengthBytes of u32Lengths) {
    badInputs++
    const client = await served.open()
    client.send(client.encodeRequest({ command: Command.WRITE, lengthBytes }))
    client.send(Buffer.alloc(4 * 1024 * 1024))
    const read = client.encodeRequest({ command: Command.READ, cookie: 9n, lengthBytes: 1 })
    client.send(read) // Payload still, not a request.
    await assertServes(served)
    t.ok(served.server.usedBytes < 2 * 1024 * 1024, `${served.server.usedBytes} bytes are held`)
    t.equal(served.server.counters().requests % 4, 0, 'nothing of the payload was a request')
    client.destroy()
    await until(() => served.server.counters().connections === 0, 'it is gone')
  }
})

t.test('a refused write of the largest size and one byte leaves the stream in step', async (t) => {
  const served = await startServer(t)
  const client = await served.open('structured')
  badInputs++
  const payload = Buffer.alloc(32 * 1024 * 1024 + 1, 0x25)
  const write = client.request({ command: Command.WRITE, payload })
  t.match(await inTime(write, 'an answer'), { error: { errno: 'EINVAL' } })
  t.equal((await client.read({ offset: 0, lengthBytes: 8 })).length, 8)
  client.destroy()
})

t.test(
  'extended: a payload above the limit ends the connection, with or without a command for it',
  async (t) => {
    const served = await startServer(t)
    for (const command of [0, 1, 3, 7, 99]) {
      for (const lengthBytes of [32n * 1024n * 1024n + 1n, ...u64s]) {
        badInputs++
        const client = await served.open('extended')
        const flags = CommandFlag.PAYLOAD_LEN
        client.send(client.encodeRequest({ command, flags, lengthBytes }))
        await inTime(client.closed, 'the end')
      }
      await assertServes(served)
    }
  },
)

t.test('extended: a payload where none belongs is consumed and refused', async (t) => {
  const served = await startServer(t)
  const client = await served.open('extended')
  for (const command of [0, 3, 4, 5, 6, 7, 50]) {
    for (const length of [1, 100, 200_000]) {
      badInputs++
      const flags = CommandFlag.PAYLOAD_LEN
      const payload = Buffer.alloc(length, 0x21)
      const { error } = await inTime(client.request({ command, flags, payload }), 'an answer')
      t.equal(error?.errno, 'EINVAL')
    }
  }
  badInputs++
  const noFlag = await inTime(
    client.request({ command: Command.WRITE, lengthBytes: 5 }),
    'an answer',
  )
  t.equal(noFlag.error?.errno, 'EINVAL')
  t.equal((await client.read({ offset: 0, lengthBytes: 8 })).length, 8)
  client.destroy()
})

t.test('block status payloads that make no sense', async (t) => {
  const served = await startServer(t)
  const client = await served.connect()
  await client.negotiateExtended()
  await client.metaContexts(OptionCode.SET_META_CONTEXT, 'memory', ['base:allocation'])
  await client.go('memory')
  for (let length = 0; length < 64; length++) {
    if (length === 8) continue // A length and no context: answered with nothing.
    badInputs++
    const payload = Buffer.alloc(length, 0xff)
    const flags = CommandFlag.PAYLOAD_LEN
    const request = client.request({ command: Command.BLOCK_STATUS, flags, payload })
    const { error } = await inTime(request, 'an answer')
    t.equal(error?.errno, 'EINVAL')
  }
  client.destroy()
  await assertServes(served)
})

t.test("the same cookie for everything is the client's own affair", async (t) => {
  const served = await startServer(t)
  const socket = await served.socket()
  const client = new NbdClient(socket)
  await client.greet(3)
  await client.go('memory')
  badInputs++
  const cookies = Array.from({ length: 100 }, () =>
    client.encodeRequest({ command: Command.FLUSH, cookie: 2n ** 64n - 1n }),
  )
  const flushed = client.request({ command: Command.FLUSH, cookie: 2n ** 64n - 1n })
  await inTime(flushed, 'an answer')
  client.send(Buffer.concat(cookies))
  await inTime(client.closed, 'the client gives up on answers it did not await')
  await assertServes(served)
})

t.test(
  'thousands of requests in one piece, of which none is read, do not stop others',
  async (t) => {
    const served = await startServer(t)
    served.memory.content.fill(1)
    const socket = await served.socket()
    const client = new NbdClient(socket)
    await client.greet(3)
    await client.go('memory')
    socket.pause()
    badInputs++
    const read = client.encodeRequest({ command: Command.READ, lengthBytes: 64 * 1024 })
    socket.write(Buffer.concat(Array.from({ length: 5000 }, () => read)))
    for (let count = 0; count < 5; count++) await assertServes(served)
    t.ok(served.server.usedBytes < 16 * 1024 * 1024, `${served.server.usedBytes} bytes are held`)
    const closed = once(socket, 'close')
    socket.resetAndDestroy()
    await inTime(closed, 'the end')
    await until(() => served.server.usedBytes === 0, 'all memory is back')
  },
)

t.test('the count', async (t) => {
  t.comment(`${badInputs} bad inputs were tried in transmission`)
  t.ok(badInputs > 1500)
})
