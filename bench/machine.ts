// The machine's facts that a reader needs to judge the figures, and the versions of what was measured.
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, release, totalmem } from 'node:os'
import { promisify } from 'node:util'
import { formatBytes } from '../src/core/units.js'

export type Machine = Readonly<Record<string, string>>

export async function machineFacts(directory: string): Promise<Machine> {
  return {
    date: new Date().toISOString().slice(0, 10),
    processor: `${cpus()[0]?.model ?? 'unknown'}, ${availableParallelism()} cores`,
    memory: formatBytes(totalmem()),
    kernel: `Linux ${release()}`,
    'file system': await firstLine('stat', ['-f', '-c', '%T', directory]),
    system: osName(),
    node: process.version,
    fio: await firstLine('fio', ['--version']),
    nbdkit: await firstLine('nbdkit', ['--version']),
    'qemu-nbd': await firstLine('qemu-nbd', ['--version']),
    'nbd-server': await firstLine('nbd-server', ['-V']),
    lockstep: await firstLine('git', ['describe', '--always', '--dirty']),
  }
}

function osName(): string {
  const name = /^PRETTY_NAME="?([^"\n]*)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  return name ?? 'unknown'
}

async function firstLine(tool: string, args: readonly string[]): Promise<string> {
  try {
    const { stdout, stderr } = await promisify(execFile)(tool, args)
    return `${stdout}${stderr}`.trim().split('\n')[0] ?? ''
  } catch {
    return 'not installed'
  }
}
