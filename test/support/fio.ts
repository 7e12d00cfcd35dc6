// One run of fio's NBD engine over a range of an export in which every block says which run wrote it and where it belongs.
//
// fio's own checksums would not do: a block of an earlier run has a good one, too. What comes back says how many blocks were written and read: a run that did
// nothing ends well, too.
import assert from 'node:assert/strict'
import { run } from './process.js'

export const fioBlockBytes = 4096

export type FioJob = {
  readonly uri: string
  readonly offset: number
  readonly sizeBytes: number
  readonly depth: number
  /** Decides the order of the blocks. */
  readonly seed: number
  /** No other run on these blocks has it. From 1 up to, not including, 2^32. */
  readonly runNumber: number
}

/** Of a job in fio's JSON, what is looked at here. */
type FioJobReport = {
  readonly read: { readonly total_ios: number }
  /** Only writes that succeeded have a latency. */
  readonly write: { readonly clat_ns: { readonly N: number } }
  /** With those that failed: fio takes no notice of it. */
  readonly sync: { readonly total_ios: number }
}

export type FioEnded = {
  readonly isOk: boolean
  readonly said: string
  readonly blocksRead: number
  readonly blocksWritten: number
  readonly flushes: number
}

const timeoutMs = 90_000

/** Writes the job's blocks in its order, or with `--verify_only` reads them and compares. A failing fio is an answer. */
export async function fio(
  job: FioJob,
  options: { readonly cwd: string; readonly flags: readonly string[] },
): Promise<FioEnded> {
  const { uri, offset, sizeBytes, depth, seed, runNumber } = job
  assert(runNumber > 0 && runNumber < 2 ** 32)
  const where = ['--ioengine=nbd', `--uri=${uri}`, `--offset=${offset}`]
  // Without randrepeat=0 the order of the blocks is the same for every seed.
  const order = ['--rw=randwrite', '--randrepeat=0', `--randseed=${seed}`]
  const shape = [`--size=${sizeBytes}`, `--bs=${fioBlockBytes}`, `--iodepth=${depth}`]
  const pattern = `%o0x${runNumber.toString(16).padStart(8, '0')}`
  const verify = ['--verify=pattern', `--verify_pattern=${pattern}`, '--verify_fatal=1']
  const quiet = ['--verify_state_save=0', '--output-format=json']
  const args = ['--name=job', ...where, ...order, ...shape, ...verify, ...quiet, ...options.flags]
  const { status, stdout, stderr } = await run('fio', args, { timeoutMs, cwd: options.cwd })
  const said = `fio ${args.join(' ')}\n${stderr}${stdout}`.slice(0, 2000)
  const start = stdout.indexOf('{\n')
  assert(start >= 0, `no report: ${said}`)
  const { jobs } = JSON.parse(stdout.slice(start)) as { readonly jobs: readonly FioJobReport[] }
  const report = jobs[0]
  assert(report, `no job: ${said}`)
  const { read, write, sync } = report
  return {
    ...{ isOk: status === 0, said },
    ...{ blocksRead: read.total_ios, blocksWritten: write.clat_ns.N, flushes: sync.total_ios },
  }
}
