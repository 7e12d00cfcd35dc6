// How fast a node gets what it lacks: a blank replica, and one that was away while the whole volume was written again; beside nbdcopy from one server to
// another, which knows nothing of what differs and goes on with nothing meanwhile.
import { mkdir, rm, truncate, writeFile } from 'node:fs/promises'
import { fio } from './fio.js'
import { Lockstep } from './lockstep.js'
import type { Options } from './options.js'
import { settle } from './page-cache.js'
import { Pair } from './pair.js'
import { accepts, Daemon, freePort, runTool } from './processes.js'

export const resyncKinds = ['blank', 'dirty', 'nbdkit', 'lockstep'] as const
export type ResyncKind = (typeof resyncKinds)[number]

/** Bytes a second, by round. `nbdkit` and `lockstep` are nbdcopy between two servers of that name. */
export type ResyncResult = Readonly<Record<ResyncKind, readonly number[]>>

export async function measureResync(options: Options): Promise<ResyncResult> {
  const rates: Record<ResyncKind, number[]> = { blank: [], dirty: [], nbdkit: [], lockstep: [] }
  for (let round = 0; round < options.runCount; round++) {
    const own = { ...options, directory: `${options.directory}/resync-${round}` }
    await mkdir(own.directory)
    for (const measure of round % 2 === 0 ? [ours, theirs] : [theirs, ours])
      for (const [kind, rate] of Object.entries(await measure(own)))
        rates[kind as ResyncKind].push(rate)
    await rm(own.directory, { recursive: true })
    const summary = resyncKinds.map((kind) => `${kind} ${mibPerSecond(rates[kind].at(-1))}`)
    process.stderr.write(`resync, MiB/s: ${summary.join(', ')}\n`)
  }
  return rates
}

const mibPerSecond = (rate = Number.NaN): number => Math.round(rate / 1024 / 1024)

async function ours(options: Options): Promise<Partial<Record<ResyncKind, number>>> {
  const pair = await Pair.start(`${options.directory}/pair`, options.sizeBytes)
  const files = [pair.primary.dataFile, pair.replica.dataFile]
  const rest = async (): Promise<void> => {
    for (const file of files) await settle(file)
  }
  const resync = async (): Promise<number> => {
    const beginMs = performance.now()
    await pair.connect()
    await pair.inSync()
    return (options.sizeBytes * 1000) / (performance.now() - beginMs)
  }
  try {
    await fill(pair.primary.unixUri('bench'), options)
    await rest()
    const blank = await resync()
    await rest()
    await pair.control.call('peer.disconnect', {})
    await fill(pair.primary.unixUri('bench'), options)
    await rest()
    return { blank, dirty: await resync() }
  } finally {
    await pair.stop()
  }
}

async function theirs(options: Options): Promise<Partial<Record<ResyncKind, number>>> {
  const { directory, sizeBytes } = options
  const daemons: Daemon[] = []
  const files: string[] = []
  const copy = async (from: string, to: string): Promise<number> => {
    await fill(from, options)
    for (const file of files) await settle(file)
    const beginMs = performance.now()
    // In the end what was copied is on stable storage, as with a resync.
    await runTool('nbdcopy', ['--flush', from, to])
    return (sizeBytes * 1000) / (performance.now() - beginMs)
  }
  try {
    const uris: string[] = []
    for (const name of ['source', 'target']) {
      const node = await Lockstep.start(await made(`${directory}/${name}`))
      daemons.push(node.daemon)
      files.push(node.dataFile)
      await node.ensureVolume('bench', sizeBytes)
      uris.push(node.tcpUri('bench'))
    }
    const lockstep = await copy(uris[0] ?? '', uris[1] ?? '')
    const plain: string[] = []
    for (const name of ['source', 'target']) {
      const port = await freePort()
      const file = `${directory}/${name}.img`
      await writeFile(file, '')
      await truncate(file, sizeBytes)
      files.push(file)
      daemons.push(
        await Daemon.start(
          [
            'nbdkit',
            ...['-f', '--exit-with-parent', '-i', '127.0.0.1', '-p', String(port)],
            ...['file', file],
          ],
          { isReady: () => accepts({ host: '127.0.0.1', port }) },
        ),
      )
      plain.push(`nbd://127.0.0.1:${port}`)
    }
    return { lockstep, nbdkit: await copy(plain[0] ?? '', plain[1] ?? '') }
  } finally {
    for (const daemon of daemons) await daemon.stop()
  }
}

async function made(directory: string): Promise<string> {
  await mkdir(directory, { recursive: true })
  return directory
}

async function fill(uri: string, options: Options): Promise<void> {
  const { sizeBytes, directory: scratch } = options
  const shape = { pattern: 'write', requestBytes: 1024 * 1024, depth: 4 } as const
  await fio(uri, shape, { sizeBytes, scratch })
}
