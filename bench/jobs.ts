// The jobs of the comparison: request size, pattern, queue depth, transport, and whether the data is in memory.

export type Transport = 'unix' | 'tcp'
export type Pattern = 'randread' | 'randwrite' | 'randrw' | 'read' | 'write'

export type Job = {
  /** `unix-4k-randread-32`; cold ones end in `-cold`. */
  readonly name: string
  readonly transport: Transport
  readonly pattern: Pattern
  readonly requestBytes: number
  readonly depth: number
  /** The exported file leaves the page cache before every run. */
  readonly isCold: boolean
}

const random = { requestBytes: 4096, depths: [1, 32] } as const
const sequential = [
  { requestBytes: 128 * 1024, depth: 8 },
  { requestBytes: 1024 * 1024, depth: 4 },
] as const

function job(values: Omit<Job, 'name'>): Job {
  const { transport, pattern, requestBytes, depth, isCold } = values
  const size = requestBytes < 1024 * 1024 ? `${requestBytes / 1024}k` : '1m'
  const name = `${transport}-${size}-${pattern}-${depth}${isCold ? '-cold' : ''}`
  return { name, ...values }
}

function warmJobs(transport: Transport): readonly Job[] {
  const { requestBytes, depths } = random
  const patterns = ['randread', 'randwrite', 'randrw'] as const
  return [
    ...patterns.flatMap((pattern) =>
      depths.map((depth) => job({ transport, pattern, requestBytes, depth, isCold: false })),
    ),
    ...(['read', 'write'] as const).flatMap((pattern) =>
      sequential.map((shape) => job({ transport, pattern, ...shape, isCold: false })),
    ),
  ]
}

/** Reads only: a write to the page cache does not ask what is in it. */
function coldJobs(transport: Transport): readonly Job[] {
  const { requestBytes, depths } = random
  return [
    ...depths.map((depth) =>
      job({ transport, pattern: 'randread', requestBytes, depth, isCold: true }),
    ),
    ...sequential.map((shape) => job({ transport, pattern: 'read', ...shape, isCold: true })),
  ]
}

/** Warm before cold, so that the page cache is filled once. */
export const allJobs: readonly Job[] = (['unix', 'tcp'] as const).flatMap((transport) => [
  ...warmJobs(transport),
  ...coldJobs(transport),
])

export function jobsMatching(only: readonly RegExp[]): readonly Job[] {
  if (only.length === 0) return allJobs
  return allJobs.filter(({ name }) => only.some((pattern) => pattern.test(name)))
}

export const isWriting = (pattern: Pattern): boolean => pattern.includes('w')
