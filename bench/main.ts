// Runs one part of the bench: checks the tools, measures in a directory of its own, prints the tables, writes what was asked for.
import { rmSync } from 'node:fs'
import { mkdtemp, statfs, writeFile } from 'node:fs/promises'
import { formatBytes, GiB } from '../src/core/units.js'
import { introduction, updateDocument } from './document.js'
import { type Machine, machineFacts } from './machine.js'
import { type Options, type PartName, parseOptions } from './options.js'
import { measureConnections, reportConnections } from './part-connections.js'
import { measureCow, reportCow } from './part-cow.js'
import { measurePeers } from './part-peers.js'
import { measureReplication } from './part-replication.js'
import { measureSizes, reportSizes } from './part-size.js'
import { measureWire, reportWire } from './part-wire.js'
import { isInstalled } from './processes.js'
import { reportPeers } from './report-peers.js'
import { reportReplication } from './report-replication.js'
import { packageOf } from './servers.js'

type PartResult = { readonly results: unknown; readonly text: string }
type Part = {
  readonly tools: (options: Options) => readonly (readonly [tool: string, debianPackage: string])[]
  readonly diskBytes: (options: Options) => number
  readonly run: (options: Options) => Promise<PartResult>
}

const parts: Readonly<Record<PartName, Part>> = {
  peers: {
    tools: ({ servers }) => [
      ['fio', 'fio'],
      ...servers.flatMap((name) => (name === 'lockstep' ? [] : [[name, packageOf[name]] as const])),
    ],
    diskBytes: ({ sizeBytes, servers }) => sizeBytes * servers.length,
    async run(options) {
      const results = await measurePeers(options)
      return { results, text: reportPeers(results) }
    },
  },
  cow: {
    tools: () => [
      ['fio', 'fio'],
      ['qemu-nbd', 'qemu-utils'],
    ],
    diskBytes: ({ sizeBytes }) => sizeBytes * 4,
    async run(options) {
      const results = await measureCow(options)
      return { results, text: reportCow(results) }
    },
  },
  connections: {
    tools: () => [],
    diskBytes: () => 2 * GiB,
    async run(options) {
      const results = await measureConnections(options)
      return { results, text: reportConnections(results) }
    },
  },
  replication: {
    tools: () => [
      ['fio', 'fio'],
      ['qemu-storage-daemon', 'qemu-system-common'],
      ['qemu-nbd', 'qemu-utils'],
      ['nbdkit', 'nbdkit'],
      ['nbdcopy', 'libnbd-bin'],
    ],
    // Five files for the jobs, and as many at most for a round of the resync.
    diskBytes: ({ sizeBytes }) => sizeBytes * 10,
    async run(options) {
      const results = await measureReplication(options)
      return { results, text: reportReplication(results) }
    },
  },
  wire: {
    tools: () => [['fio', 'fio']],
    // Every block is written three times, and snapshots keep two of them; on both nodes.
    diskBytes: ({ sizeBytes }) => sizeBytes * 6,
    async run(options) {
      const results = await measureWire(options)
      return { results, text: reportWire(results) }
    },
  },
  size: {
    tools: () => [],
    // The data files are holes; a full TiB's journal and two checkpoints are what is written.
    diskBytes: ({ runCount }) => runCount * 2 * GiB,
    async run(options) {
      const results = await measureSizes(options)
      return { results, text: reportSizes(results) }
    },
  },
}

async function main(options: Options): Promise<void> {
  const part = parts[options.part]
  await checkTools(part.tools(options))
  await checkRoom(options.directory, part.diskBytes(options))
  const directory = await mkdtemp(`${options.directory}/lockstep-bench-`)
  // On every way out, after the servers were ended.
  process.on('exit', () => rmSync(directory, { recursive: true }))
  await report(options, await part.run({ ...options, directory }), await machineFacts(directory))
}

async function report(options: Options, { results, text }: PartResult, machine: Machine) {
  const { commandLine, jsonPath, line, part } = options
  process.stdout.write(`\n${text}`)
  if (jsonPath !== undefined) {
    await writeFile(jsonPath, JSON.stringify({ commandLine, machine, results }, null, 1))
    process.stderr.write(`wrote ${jsonPath}\n`)
  }
  if (!options.isForDocument) return
  const document = await updateDocument(
    line === 'tcp' ? part : `${part} over a Unix socket`,
    `${introduction(commandLine, machine)}\n${text}`,
  )
  process.stderr.write(`wrote ${document}\n`)
}

/** Nothing is installed here: that is for the person at the keyboard to decide. */
async function checkTools(tools: readonly (readonly [string, string])[]): Promise<void> {
  const missing: string[] = []
  for (const [tool, debianPackage] of tools) {
    if (!(await isInstalled(tool))) missing.push(debianPackage)
  }
  if (missing.length === 0) return
  throw new Error(`tools are missing; install them with: apt install ${missing.join(' ')}`)
}

async function checkRoom(directory: string, neededBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory)
  if (bavail * bsize > neededBytes * 1.2) return
  const needed = formatBytes(neededBytes)
  throw new Error(`${directory} has no room for ${needed}; choose another with --dir, or --size`)
}

// An interrupted bench leaves neither servers nor files: both go on the way out.
process.once('SIGINT', () => process.exit(130))
process.once('SIGTERM', () => process.exit(143))

function fail(error: unknown, exitCode: number): void {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = exitCode
}

try {
  const options = parseOptions(process.argv.slice(2))
  main(options).catch((error: unknown) => fail(error, 1))
} catch (error) {
  fail(error, 2)
}
