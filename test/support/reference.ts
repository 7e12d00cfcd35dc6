// Servers that are known to be good, for showing that the harnesses are right: nbdkit and qemu-nbd on a Unix socket and a port.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import net from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import { endChild, scratch, toolEnvironment } from './process.js'
import { waitFor } from './wait.js'

export type ReferenceServer = {
  readonly port: number
  readonly uri: string
  readonly socketPath: string
  readonly filePath: string
}

/** nbdkit on an empty file, listening on loopback TCP; a relay gives it a Unix socket too. Ended with the test. */
export async function startReference(
  t: Test,
  options: { readonly sizeBytes: number },
): Promise<ReferenceServer> {
  const directory = scratch(t)
  const filePath = join(directory, 'data')
  const socketPath = join(directory, 'socket')
  await using file = await open(filePath, 'w')
  await file.truncate(options.sizeBytes)
  const child = spawn(
    'nbdkit',
    ['--foreground', '--exit-with-parent', '--unix', socketPath, 'file', filePath],
    { env: toolEnvironment(), stdio: ['ignore', 'ignore', 'inherit'] },
  )
  const relay = net.createServer((client) => {
    const upstream = net.connect(socketPath)
    for (const socket of [client, upstream]) socket.on('error', () => socket.destroy())
    client.pipe(upstream).pipe(client)
  })
  relay.listen(0, '127.0.0.1')
  await once(relay, 'listening')
  t.teardown(async () => {
    relay.close()
    await endChild(child)
  })
  await waitFor('nbdkit listens', () => canConnect(socketPath))
  const { port } = relay.address() as net.AddressInfo
  return { port, socketPath, filePath, uri: `nbd+unix:///vol0?socket=${socketPath}` }
}

/** True when somebody listens on that Unix socket. */
export function canConnect(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(socketPath)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
