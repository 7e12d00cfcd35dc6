// A running NbdServer over memory exports for tests: listens on loopback, records what its hooks say, and is gone when the test ends.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type { Test } from 'tap'
import { NbdClient } from '../../nbd/client.js'
import type { PrivateOption, TlsOffer } from '../../nbd/handshake.js'
import type { FailedRequest, SessionEnd } from '../../nbd/hooks.js'
import type { Limits } from '../../nbd/limits.js'
import { NbdServer } from '../../nbd/server.js'
import type { Timers } from '../../nbd/timers.js'
import { exportList, MemoryExport } from './memory-export.js'

/** Every wait of these tests ends by then, as a failure. */
export const waitTimeoutMs = 15_000

export type TestServer = {
  readonly server: NbdServer
  readonly port: number
  readonly memory: MemoryExport
  readonly ends: SessionEnd[]
  readonly failures: FailedRequest[]
  readonly refusals: string[]
  readonly fatal: unknown[]
  /** A client that has exchanged greetings. */
  connect(options?: { readonly clientFlags?: number }): Promise<NbdClient>
  /** A client in transmission on the memory export. */
  open(style?: 'simple' | 'structured' | 'extended'): Promise<NbdClient>
  /** A bare socket, whose errors are nobody's problem. */
  socket(): Promise<Socket>
  /** Resolves once `count` connections have ended. */
  ended(count: number): Promise<void>
}

export type TestServerOptions = {
  readonly sizeBytes?: number
  readonly memory?: MemoryExport
  readonly others?: readonly MemoryExport[]
  readonly limits?: Partial<Limits>
  readonly timers?: Timers
  readonly tls?: TlsOffer
  readonly privateOptions?: readonly PrivateOption[]
  readonly explainMissing?: (name: string) => string
}

/** Resolves when `isTrue` says so; asks after every turn of the event loop. */
export async function until(isTrue: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + waitTimeoutMs
  while (!isTrue()) {
    assert(performance.now() < deadline, `not in time: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

/** Rejects when `promise` does not settle in time. */
export async function inTime<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not in time: ${what}`)), waitTimeoutMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

function explaining({ explainMissing }: TestServerOptions) {
  return explainMissing === undefined ? {} : { explainMissing }
}

export async function startServer(t: Test, options: TestServerOptions = {}): Promise<TestServer> {
  const memory = options.memory ?? new MemoryExport({ sizeBytes: options.sizeBytes ?? 1024 * 1024 })
  const ends: SessionEnd[] = []
  const failures: FailedRequest[] = []
  const refusals: string[] = []
  const fatal: unknown[] = []
  const server = new NbdServer({
    ...options,
    exports: { ...exportList(memory, ...(options.others ?? [])), ...explaining(options) },
    hooks: {
      onSessionEnd: (_, end) => void ends.push(end),
      onRequestFailed: (_, failure) => void failures.push(failure),
      onRefused: (_, message) => void refusals.push(message),
      onFatal: (error) => void fatal.push(error),
    },
  })
  const listener = server.createListener()
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  t.teardown(() => inTime(server.stop(), 'the server stops'))
  const connectClient = (clientOptions?: { clientFlags?: number }): Promise<NbdClient> =>
    inTime(NbdClient.connect({ port, host: '127.0.0.1' }, clientOptions), 'a greeting')
  return {
    server,
    port,
    memory,
    ends,
    failures,
    refusals,
    fatal,
    connect: connectClient,
    async open(style = 'simple') {
      const client = await connectClient()
      t.teardown(() => client.destroy())
      if (style === 'structured') await client.negotiateStructured()
      if (style === 'extended') await client.negotiateExtended()
      await inTime(client.go(memory.name), 'GO')
      return client
    },
    async socket() {
      const socket = connect({ port, host: '127.0.0.1' })
      socket.on('error', () => {})
      t.teardown(() => socket.destroy())
      await inTime(once(socket, 'connect'), 'a connection')
      return socket
    },
    ended: (count) => until(() => ends.length >= count, `${count} connections ended`),
  }
}

/** The server still serves: a good client writes, reads back, and leaves. */
export async function assertServes(served: TestServer): Promise<void> {
  const client = await served.connect()
  try {
    await inTime(client.negotiateStructured(), 'STRUCTURED_REPLY')
    await inTime(client.go(served.memory.name), 'GO')
    const data = Buffer.from('still here')
    await inTime(client.write({ offset: 4096, data }), 'a write')
    const found = await inTime(client.read({ offset: 4096, lengthBytes: data.length }), 'a read')
    assert.deepEqual(found, data)
    await inTime(client.disconnect(), 'the goodbye')
  } finally {
    client.destroy()
  }
}
