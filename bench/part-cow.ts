// Writes after a snapshot: the first one to each chunk (which is copied), and later ones, beside qcow2 with an internal snapshot. Both copy 64 KiB a cluster.
//
// The same work for both, random 4 KiB writes over a fully written volume: for some seconds before the snapshot, a fixed number after it (they are over
// when each chunk was met once), and for some seconds after every chunk was written once more. qcow2's snapshot is taken with the server down, as qemu-img wants it.
import { fio } from './fio.js'
import { Lockstep } from './lockstep.js'
import type { Options } from './options.js'
import { settle } from './page-cache.js'
import { accepts, Daemon, runTool } from './processes.js'
import { median, medianRatio } from './statistics.js'
import { table } from './table.js'

const depths = [1, 32] as const
const phases = ['before', 'first writes', 'later writes'] as const
type Phase = (typeof phases)[number]

/** A volume that can be written, and take a snapshot of itself. */
type Subject = {
  readonly name: 'lockstep' | 'qcow2'
  readonly uri: () => string
  readonly backingFile: string
  readonly snapshot: (name: string) => Promise<void>
  readonly stop: () => Promise<void>
}

export type CowResult = {
  readonly depth: number
  /** Requests a second, by round. */
  readonly rates: Readonly<Record<Subject['name'], Readonly<Record<Phase, readonly number[]>>>>
}

export async function measureCow(options: Options): Promise<readonly CowResult[]> {
  const subjects = [await lockstepSubject(options), await qcowSubject(options)]
  try {
    for (const subject of subjects) await fill(subject, options)
    const results: CowResult[] = []
    for (const depth of depths) {
      const empty = (): Record<Phase, number[]> => ({
        before: [],
        'first writes': [],
        'later writes': [],
      })
      const rates = { lockstep: empty(), qcow2: empty() }
      for (let round = 0; round < options.runCount; round++) {
        for (const subject of round % 2 === 0 ? subjects : [...subjects].reverse()) {
          await measureRound(subject, { depth, round }, options, rates[subject.name])
        }
      }
      results.push({ depth, rates })
    }
    return results
  } finally {
    for (const subject of subjects) await subject.stop()
  }
}

export function reportCow(results: readonly CowResult[]): string {
  const rows = results.flatMap(({ depth, rates }) =>
    phases.map((phase) => [
      `4k random writes, depth ${depth}, ${phase}`,
      `${(median(rates.lockstep[phase]) / 1000).toFixed(1)}k/s`,
      `${(median(rates.qcow2[phase]) / 1000).toFixed(1)}k/s`,
      medianRatio(rates.lockstep[phase], rates.qcow2[phase]).toFixed(2),
      medianRatio(rates.lockstep[phase], rates.lockstep.before).toFixed(2),
    ]),
  )
  return table(['', 'lockstep', 'qcow2', '÷ qcow2', '÷ own before'], rows)
}

async function measureRound(
  subject: Subject,
  { depth, round }: { readonly depth: number; readonly round: number },
  options: Options,
  rates: Record<Phase, number[]>,
): Promise<void> {
  rates.before.push(await writeForLong(subject, depth, options))
  await subject.snapshot(`s${depth}-${round}`)
  rates['first writes'].push(await writeFirst(subject, depth, options))
  await fill(subject, options)
  rates['later writes'].push(await writeForLong(subject, depth, options))
  process.stderr.write(
    `${subject.name}, depth ${depth}: ${phases.map((phase) => Math.round(rates[phase].at(-1) ?? 0)).join(' ')}\n`,
  )
}

/** A quarter as many writes as there are 64 KiB clusters: most of them meet a cluster for the first time. */
async function writeFirst(subject: Subject, depth: number, options: Options): Promise<number> {
  const workBytes = (options.sizeBytes / (64 * 1024) / 4) * 4096
  return writeRandomly(subject, depth, options, { workBytes })
}

/** Long enough that what the server does at the beginning does not count. */
async function writeForLong(subject: Subject, depth: number, options: Options): Promise<number> {
  return writeRandomly(subject, depth, options, { seconds: options.seconds })
}

async function writeRandomly(
  subject: Subject,
  depth: number,
  { sizeBytes, directory: scratch }: Options,
  length: { readonly workBytes: number } | { readonly seconds: number },
): Promise<number> {
  const shape = { pattern: 'randwrite', requestBytes: 4096, depth } as const
  const { requestsPerSecond } = await fio(subject.uri(), shape, { sizeBytes, scratch, ...length })
  await settle(subject.backingFile)
  return requestsPerSecond
}

async function fill(subject: Subject, options: Options): Promise<void> {
  const { sizeBytes, directory: scratch } = options
  await fio(
    subject.uri(),
    { pattern: 'write', requestBytes: 1024 * 1024, depth: 4 },
    { sizeBytes, scratch },
  )
  await settle(subject.backingFile)
}

async function lockstepSubject(options: Options): Promise<Subject> {
  const directory = `${options.directory}/lockstep`
  const lockstep = await Lockstep.start(directory)
  await lockstep.ensureVolume('bench', options.sizeBytes)
  let previous: string | undefined
  return {
    name: 'lockstep',
    uri: () => lockstep.unixUri('bench'),
    backingFile: `${directory}/data`,
    // One snapshot at a time on both sides: the space is the same.
    snapshot: async (name) => {
      if (previous !== undefined)
        await lockstep.command('snapshot', 'delete', `bench@${previous}`, '--yes')
      await lockstep.command('snapshot', 'create', `bench@${name}`)
      previous = name
    },
    stop: () => lockstep.daemon.stop(),
  }
}

async function qcowSubject(options: Options): Promise<Subject> {
  const file = `${options.directory}/image.qcow2`
  await runTool('qemu-img', ['create', '-q', '-f', 'qcow2', file, String(options.sizeBytes)])
  let starts = 0
  let socket = ''
  const start = async (): Promise<Daemon> => {
    socket = `${options.directory}/qcow2.${starts++}.sock`
    const where = ['-k', socket, '-x', 'bench']
    const command = [
      'qemu-nbd',
      '-t',
      '-e',
      '8',
      '-f',
      'qcow2',
      '--cache=writeback',
      ...where,
      file,
    ]
    return Daemon.start(command as [string, ...string[]], {
      isReady: () => accepts({ path: socket }),
    })
  }
  let daemon = await start()
  let previous: string | undefined
  return {
    name: 'qcow2',
    uri: () => `nbd+unix:///bench?socket=${socket}`,
    backingFile: file,
    snapshot: async (name) => {
      await daemon.stop()
      if (previous !== undefined) await runTool('qemu-img', ['snapshot', '-d', previous, file])
      await runTool('qemu-img', ['snapshot', '-c', name, file])
      previous = name
      daemon = await start()
    },
    stop: () => daemon.stop(),
  }
}
