// The other end of a link in the hands of a test: sends any frame, right or wrong, and keeps what comes.
//
// Invariant: it speaks the real frames, so what it gets wrong is what the test meant to.
import assert from 'node:assert/strict'
import type { Duplex } from 'node:stream'
import type { Operation } from '../../src/core/operation.js'
import type { Generation, Sequence, StoreId } from '../../src/core/units.js'
import type { Frame, ReceivedFrame } from '../../src/replication/frames.js'
import type { Hello } from '../../src/replication/hello.js'
import { type CloseReason, PeerConnection } from '../../src/replication/peer-connection.js'
import { Life } from '../simulation/sim-clock.js'
import { duplexPair } from './duplex-pair.js'
import type { EnginePair } from './engine-pair.js'

export const fakeGroup = 'fake-group'
export const fakeGeneration = 'a'.repeat(32) as Generation
const at = '2024-01-01T00:00:00.000Z'

export class FakePeer {
  readonly pair: EnginePair
  readonly connection: PeerConnection
  readonly frames: ReceivedFrame[] = []
  reason: CloseReason | undefined
  /** Sees each frame when it comes. */
  onFrame: (frame: ReceivedFrame) => void = () => {}
  /** While false nothing is read. */
  isReading = true

  constructor(pair: EnginePair, stream: Duplex, side: 'primary' | 'secondary') {
    this.pair = pair
    this.connection = new PeerConnection({
      stream,
      clock: pair.scheduler.clockOf(new Life('fake')),
      side,
      receive: (frame) => {
        this.frames.push(frame)
        this.onFrame(frame)
        return this.isReading ? undefined : new Promise(() => {})
      },
    })
    void this.connection.closed.then((reason) => {
      this.reason = reason
    })
  }

  send(frame: Frame): void {
    this.connection.send(frame)
  }

  /** The oldest frame of this kind, removed; waits for it. */
  async next<Kind extends ReceivedFrame['kind']>(
    kind: Kind,
  ): Promise<Extract<ReceivedFrame, { kind: Kind }>> {
    const find = (): number => this.frames.findIndex((frame) => frame.kind === kind)
    await this.pair.until(() => find() >= 0 || this.reason !== undefined, `a ${kind} frame`)
    const [found] = this.frames.splice(find(), 1)
    assert.equal(found?.kind, kind, `the connection ended: ${this.reason?.message}`)
    return found as Extract<ReceivedFrame, { kind: Kind }>
  }

  /** Resolves to the reason when the connection has ended. */
  async ended(): Promise<string> {
    await this.pair.until(() => this.reason !== undefined, 'the end of the connection')
    return this.reason?.message ?? ''
  }
}

export function fakeHello(of: Partial<Hello> = {}): Hello {
  return {
    versionMin: 1,
    versionMax: 1,
    nodeId: 'fake-node',
    node: 'fake',
    group: fakeGroup,
    role: 'primary',
    isBlank: false,
    isWhole: true,
    chunkBytes: 4096,
    generations: [{ generation: fakeGeneration, forkSequence: 0 }],
    sequence: 10 as Sequence,
    runs: [],
    batchNumber: 0,
    ...of,
  }
}

/** A primary that is none: has a group with the volume `vol0` of 64 KiB, store 1, and its snapshot `vol0@a`, store 2. */
export class FakePrimary extends FakePeer {
  /** Of the last entry that was sent. */
  sequence = 10
  #replayed = 0

  static async connect(pair: EnginePair, name: string): Promise<FakePrimary> {
    const stream = await pair.run(pair.network.connect(new Life('fake'), name))
    return new FakePrimary(pair, stream, 'primary')
  }

  /** Says hello, and decides what the secondary needs. */
  async greet(of: Partial<Hello> = {}): Promise<void> {
    this.send({ kind: 'hello', body: { ...fakeHello(of) } })
    const { body } = await this.next('hello')
    const isBlank = body['isBlank'] === true
    const { sequence } = body
    assert(typeof sequence === 'number')
    if (!isBlank) this.sequence = sequence
    this.send({
      kind: 'decision',
      body: {
        rule: isBlank ? 'blank' : 'behind',
        kind: isBlank ? 'full' : 'resume',
        direction: 'to-peer',
        ...(isBlank ? {} : { fromSequence: sequence }),
        operations: 1,
        bytes: 0,
        reason: 'a test',
      },
    })
    await this.next('ready')
  }

  /** From nothing, or from an earlier connection, to a secondary that is whole and follows. */
  async follow(): Promise<void> {
    const isBlank = this.pair.b.engine.status().group === ''
    await this.greet({ sequence: (isBlank ? 10 : 1_000_000) as Sequence })
    if (!isBlank) return
    this.replay(++this.sequence, tableOperation())
    this.streamFrom(this.sequence + 1)
    this.operation({ kind: 'resync-end' })
    await this.pair.until(() => this.pair.b.link === 'streaming', 'the secondary follows')
  }

  replay(sequence: number, operation: Operation, after: number = this.#replayed): void {
    this.#replayed = sequence
    const numbers = { sequence: sequence as Sequence, after: after as Sequence }
    this.send({ kind: 'replay', ...numbers, at, operation })
  }

  streamFrom(sequence: number, after: number = this.#replayed): void {
    const numbers = { sequence: sequence as Sequence, after: after as Sequence }
    this.send({ kind: 'stream-from', ...numbers })
  }

  operation(operation: Operation): void {
    const sequence = ++this.sequence as Sequence
    this.send({ kind: 'operation', sequence, at, operation })
  }

  write(value: number, of: { sequence?: number; storeId?: number; offset?: number } = {}): void {
    const sequence = (of.sequence ?? ++this.sequence) as Sequence
    this.send({
      kind: 'write',
      sequence,
      storeId: (of.storeId ?? 1) as StoreId,
      offset: of.offset ?? 0,
      lengthBytes: 4096,
      fua: false,
      parts: [Buffer.alloc(4096, value)],
    })
  }
}

export function tableOperation(
  of: Partial<Extract<Operation, { kind: 'reset' }>['table']> = {},
): Operation {
  const position = { generation: fakeGeneration, sequence: 5 as Sequence }
  const sizeBytes = 65536
  return {
    kind: 'reset',
    table: {
      group: fakeGroup,
      generations: [{ generation: fakeGeneration, forkSequence: 0 }],
      nextStoreId: 3,
      stores: [
        { id: 1 as StoreId, name: 'vol0', sizeBytes, createdAt: at },
        {
          id: 2 as StoreId,
          name: 'a',
          sizeBytes,
          volumeId: 1 as StoreId,
          position,
          createdAt: at,
        },
      ],
      ...of,
    },
  }
}

/** A secondary that is none: takes what it gets, and answers what the test says. */
export class FakeSecondary extends FakePeer {
  received = 0
  /** Answers each entry as it comes. */
  isAnswering = true

  /** Takes the place of b: `connected` resolves with each connection of a. */
  static listen(pair: EnginePair, each: (peer: FakeSecondary) => void): void {
    pair.connect = async () => {
      const [near, far] = duplexPair()
      each(new FakeSecondary(pair, far, 'secondary'))
      return near
    }
  }

  /** A blank node that gets everything and is up to date then. */
  serve(): void {
    this.onFrame = (frame) => {
      switch (frame.kind) {
        case 'hello':
          this.send({ kind: 'hello', body: { ...blankHello() } })
          return
        case 'decision':
          this.send({ kind: 'ready', body: {} })
          return
        case 'replay':
          this.received = frame.sequence
          this.answer(this.received, this.received, this.received)
          return
        case 'stream-from':
          this.received = frame.sequence - 1
          this.answer(this.received, this.received, this.received)
          return
        default:
          if ('sequence' in frame) this.received = frame.sequence
          if (this.isAnswering) this.answer(this.received, this.received, this.received)
      }
    }
  }

  answer(received: number, applied: number, durable: number): void {
    this.connection.answer(received as Sequence, applied as Sequence, durable as Sequence)
  }
}

export function blankHello(of: Partial<Hello> = {}): Hello {
  return fakeHello({
    group: '',
    role: 'secondary',
    isBlank: true,
    isWhole: false,
    generations: [],
    sequence: 0 as Sequence,
    ...of,
  })
}
