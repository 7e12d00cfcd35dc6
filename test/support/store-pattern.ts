// Known bytes in vol0 of a real daemon, put there and looked for by qemu-io.
import { output, run } from './process.js'
import type { LockstepServer } from './server.js'

/** Durable when it resolves. `range`: offset and length in the words of qemu-io, such as `2M 64k`. */
export async function writePattern(
  server: LockstepServer,
  pattern: number,
  range: string,
): Promise<void> {
  const command = `write -P ${pattern} ${range}`
  await output('qemu-io', ['-f', 'raw', '-c', command, '-c', 'flush', server.uri('vol0')])
}

export async function holdsPattern(
  server: LockstepServer,
  pattern: number,
  range: string,
): Promise<boolean> {
  const read = `read -P ${pattern} ${range}`
  const found = await run('qemu-io', ['-r', '-f', 'raw', '-c', read, server.uri('vol0')])
  return found.status === 0 && !found.stdout.includes('verification failed')
}
