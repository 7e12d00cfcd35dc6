// One run of fio's nbd engine against a server that is up.
import { readFile, rm } from 'node:fs/promises'
import type { Job } from './jobs.js'
import { runTool } from './processes.js'

export type Measurement = {
  readonly requestsPerSecond: number
  readonly bytesPerSecond: number
  /** 99th percentile of a request's time, in microseconds; of the slower direction. */
  readonly p99Us: number
}

export type FioShape = Pick<Job, 'pattern' | 'requestBytes' | 'depth'>

type FioDirection = {
  readonly iops: number
  readonly bw_bytes: number
  readonly total_ios: number
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> }
}
type FioOutput = {
  readonly jobs: readonly [
    { readonly error: number; readonly read: FioDirection; readonly write: FioDirection },
  ]
}

/** Runs for `seconds`, or for `workBytes` of requests, or without both once over the whole. Throws when a request failed. */
export async function fio(
  uri: string,
  shape: FioShape,
  length: {
    readonly seconds?: number
    readonly workBytes?: number
    readonly sizeBytes: number
    readonly scratch: string
  },
): Promise<Measurement> {
  const output = `${length.scratch}/fio.json`
  const { seconds, workBytes } = length
  const time = [
    ...(seconds === undefined ? [] : ['--time_based', `--runtime=${seconds}`]),
    ...(workBytes === undefined ? [] : [`--io_size=${workBytes}`]),
  ]
  await runTool('fio', [
    '--name=bench',
    '--ioengine=nbd',
    `--uri=${uri}`,
    `--rw=${shape.pattern}`,
    `--bs=${shape.requestBytes}`,
    `--iodepth=${shape.depth}`,
    `--size=${length.sizeBytes}`,
    // A map of blocks already touched would cost fio more than some servers cost themselves.
    ...(shape.pattern.startsWith('rand') && (seconds ?? workBytes) !== undefined
      ? ['--norandommap=1']
      : []),
    ...time,
    '--output-format=json',
    // fio prints lines of its own before the JSON on its standard output.
    `--output=${output}`,
  ])
  const text = await readFile(output, 'utf8')
  await rm(output)
  return measurementOf(JSON.parse(text.slice(text.indexOf('{'))) as FioOutput)
}

function measurementOf({ jobs: [job] }: FioOutput): Measurement {
  const directions = [job.read, job.write].filter((direction) => direction.total_ios > 0)
  if (job.error !== 0 || directions.length === 0) throw new Error(`fio failed: error ${job.error}`)
  const sum = (of: (direction: FioDirection) => number): number =>
    directions.reduce((total, direction) => total + of(direction), 0)
  const p99Ns = directions.map(({ clat_ns }) => clat_ns.percentile?.['99.000000'] ?? 0)
  return {
    requestsPerSecond: sum(({ iops }) => iops),
    bytesPerSecond: sum(({ bw_bytes }) => bw_bytes),
    p99Us: Math.max(...p99Ns) / 1000,
  }
}
