// What of the protocol library is fuzzed: the server's side from the first byte on, the client's side, and the pure parsers.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { NbdClient, OptionError } from '../../nbd/client.js'
import { Command, CommandFlag, OptionCode } from '../../nbd/constants.js'
import { RequestError } from '../../nbd/errors.js'
import { defaultLimits } from '../../nbd/limits.js'
import { ClientGreeting, OptionHeader } from '../../nbd/messages.js'
import { contextBody, infoBody, parseContextBody, parseInfoBody } from '../../nbd/option-bodies.js'
import { NbdServer } from '../../nbd/server.js'
import { parseStatusFilter } from '../../nbd/status.js'
import { duplexPair } from '../support/duplex-pair.js'
import type { FuzzTarget } from '../support/fuzz.js'
import { ManualTimers } from '../support/manual-timers.js'
import { exportList, MemoryExport } from '../support/memory-export.js'

const exportBytes = 8 * 1024
const styles = ['simple', 'structured', 'extended'] as const
type Style = (typeof styles)[number]
const digest = (bytes: Buffer): string => createHash('sha1').update(bytes).digest('hex')

function newServer(memory: MemoryExport): { server: NbdServer; ends: string[] } {
  const ends: string[] = []
  const server = new NbdServer({
    exports: exportList(memory),
    timers: new ManualTimers(),
    hooks: {
      onSessionEnd: (_, { reason, error }) => {
        if (error !== undefined) throw error
        ends.push(reason)
      },
      onFatal: (error) => {
        throw error
      },
    },
  })
  return { server, ends }
}

function newMemory(): MemoryExport {
  const memory = new MemoryExport({ sizeBytes: exportBytes })
  memory.contexts = ['base:allocation', 'x-test:odd']
  memory.content.fill(1, 0, 4096)
  return memory
}

/** Writes the pieces, one a turn, while there is somebody to read them. */
async function feed(stream: Duplex, pieces: readonly Buffer[]): Promise<void> {
  for (const piece of pieces) {
    if (stream.destroyed) return
    stream.write(piece)
    await new Promise((resolve) => setImmediate(resolve))
  }
  stream.end()
}

/** A client's bytes up to transmission, then one of each command. */
async function clientBytes(style: Style): Promise<Buffer> {
  const [ours, theirs] = duplexPair()
  const sent: Buffer[] = []
  const write = ours.write.bind(ours)
  ours.write = ((bytes: Buffer) => {
    sent.push(bytes)
    return write(bytes)
  }) as typeof ours.write
  const { server } = newServer(newMemory())
  server.accept(theirs)
  await script(new NbdClient(ours), style)
  return Buffer.concat(sent)
}

/** What is seen of an attempt: its result, or its declared error. Throws any other. */
async function attempt(action: () => Promise<unknown>): Promise<unknown> {
  try {
    const result = await action()
    return Buffer.isBuffer(result) ? digest(result) : result
  } catch (error) {
    const isDeclared =
      error instanceof ProtocolError ||
      error instanceof OptionError ||
      error instanceof RequestError
    if (!isDeclared) throw error
    // How much had come depends on the pieces.
    return error.name === 'ConnectionEnded' ? error.name : error.message
  }
}

/** What a client does in every seed, whatever the server says to it: options one after the other, then requests all at once. */
async function script(client: NbdClient, style: Style): Promise<string> {
  const seen: unknown[] = [await client.greet(3)]
  if (style !== 'simple') seen.push(await attempt(() => client.negotiateStructured()))
  if (style === 'extended') seen.push(await attempt(() => client.negotiateExtended()))
  seen.push(await attempt(() => client.list()))
  if (style !== 'simple') {
    const names = ['base:allocation', 'x-test:odd']
    const set = OptionCode.SET_META_CONTEXT
    seen.push(await attempt(() => client.metaContexts(set, 'memory', names)))
  }
  seen.push(await attempt(async () => [...(await client.info('memory', [1, 2, 3])).keys()]))
  let isTransmitting = false
  const go = async (): Promise<unknown> => {
    const infos = await client.go('memory', [3])
    isTransmitting = true
    return [...infos.keys()]
  }
  seen.push(await attempt(go))
  const zero = { offset: 512, lengthBytes: 512, flags: CommandFlag.NO_HOLE }
  const status = { offset: 0, lengthBytes: exportBytes }
  const requests: (() => Promise<unknown>)[] = [
    () => client.read({ offset: 4000, lengthBytes: 1000 }),
    () => client.write({ offset: 100, data: Buffer.alloc(600, 9), fua: true }),
    () => client.read({ offset: 0, lengthBytes: exportBytes }),
    () => client.read({ offset: exportBytes, lengthBytes: 1 }),
    () => client.command(Command.FLUSH),
    () => client.command(Command.TRIM, { offset: 0, lengthBytes: 512 }),
    () => client.command(Command.WRITE_ZEROES, zero),
    () => client.command(Command.CACHE, { offset: 0, lengthBytes: 512 }),
    () => client.command(Command.BLOCK_STATUS, status),
  ]
  if (isTransmitting) seen.push(...(await Promise.all(requests.map(attempt))))
  client.send(client.encodeRequest({ command: Command.DISC }))
  client.stream.end()
  client.destroy()
  return JSON.stringify(seen)
}

const server: FuzzTarget = {
  name: 'nbd server',
  async seeds() {
    const all = [await clientBytes('simple'), await clientBytes('structured')]
    const exportName = Buffer.concat([
      ClientGreeting.encode({ flags: 1 }),
      OptionHeader.encode({ option: OptionCode.EXPORT_NAME, lengthBytes: 6 }),
      Buffer.from('memory'),
    ])
    return [...all, await clientBytes('extended'), exportName]
  },
  async run(pieces) {
    const memory = newMemory()
    const { server: nbd, ends } = newServer(memory)
    const [ours, theirs] = duplexPair()
    const answers: Buffer[] = []
    ours.on('data', (bytes: Buffer) => answers.push(bytes))
    const closed = new Promise((resolve) => ours.once('close', resolve))
    nbd.accept(theirs)
    await feed(ours, pieces)
    await closed
    while (ends.length === 0) await new Promise((resolve) => setImmediate(resolve))
    const answer = Buffer.concat(answers)
    let inputBytes = 0
    for (const piece of pieces) inputBytes += piece.length
    // A request of 28 bytes reads all of the export, an option of 16 bytes has a text; nothing answers more than that.
    assert(
      answer.length <= 1000 + (inputBytes / 16) * 400 + (inputBytes / 28) * (exportBytes + 200),
    )
    assert.equal(nbd.usedBytes, 0)
    assert.equal(memory.attachedCount, 0)
    return `${ends.join()} ${digest(answer)} ${digest(memory.content)}`
  },
}

/** What the server said in a good conversation, and how much of it was the handshake. */
async function serverBytes(style: Style): Promise<{ handshake: Buffer; transmission: Buffer }> {
  const [ours, theirs] = duplexPair()
  const received: Buffer[] = []
  ours.prependListener('data', (bytes: Buffer) => received.push(bytes))
  newServer(newMemory()).server.accept(theirs)
  const nbd = new NbdClient(ours)
  const go = nbd.go.bind(nbd)
  let handshakeCount = 0
  nbd.go = async (...args) => {
    const infos = await go(...args)
    handshakeCount = received.length
    return infos
  }
  await script(nbd, style)
  const handshake = Buffer.concat(received.slice(0, handshakeCount))
  return { handshake, transmission: Buffer.concat(received.slice(handshakeCount)) }
}

const handshakeBytes: number[] = []

/** The first byte says what the client negotiates. Answers may not come before their questions: the handshake's come in one piece, and
 *  the others, in any pieces, when everything was asked. */
const client: FuzzTarget = {
  name: 'nbd client',
  async seeds() {
    const conversations: Buffer[] = []
    for (const [index, style] of styles.entries()) {
      const { handshake, transmission } = await serverBytes(style)
      handshakeBytes[index] = handshake.length
      conversations.push(Buffer.concat([Buffer.from([index]), handshake, transmission]))
    }
    return conversations
  },
  async run(pieces) {
    const index = (pieces[0]?.[0] ?? 0) % styles.length
    const [ours, theirs] = duplexPair()
    theirs.resume()
    theirs.on('error', () => {})
    const result = script(new NbdClient(ours), styles[index] ?? 'simple').catch(
      (error: unknown) => {
        if (error instanceof ProtocolError) return 'no greeting'
        throw error
      },
    )
    const start = 1 + (handshakeBytes[index] ?? 0)
    let at = 0
    const later: Buffer[] = []
    for (const piece of pieces) {
      if (at + piece.length > start) later.push(piece.subarray(Math.max(0, start - at)))
      at += piece.length
    }
    theirs.write(Buffer.concat(pieces).subarray(1, start))
    for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve))
    await feed(theirs, later)
    return result
  },
}

const limits = { ...defaultLimits, contextQueryCountMax: 10 }
const contexts = [
  { id: 1, name: 'base:allocation' },
  { id: 2, name: 'x-test:odd' },
]
const parsers = [
  (body: Buffer) => [...parseInfoBody(body, limits).infos],
  (body: Buffer) => parseContextBody(body, limits).queries,
  (body: Buffer) => parseStatusFilter(body, contexts).contexts,
]

const bodies: FuzzTarget = {
  name: 'nbd option bodies',
  seeds: () => [
    Buffer.concat([Buffer.from([0]), infoBody('vol0@snap', [0, 1, 2, 3])]),
    Buffer.concat([Buffer.from([1]), contextBody('vol0', ['base:allocation', 'x-test:é'])]),
    Buffer.concat([Buffer.from([2]), Buffer.from('00000000000100000000000100000002', 'hex')]),
  ],
  run(pieces) {
    const input = Buffer.concat(pieces)
    try {
      return JSON.stringify(parsers[(input[0] ?? 0) % parsers.length]?.(input.subarray(1)))
    } catch (error) {
      if (error instanceof ProtocolError || error instanceof RequestError) return error.message
      throw error
    }
  },
}

export const nbdFuzzTargets: readonly FuzzTarget[] = [server, client, bodies]
