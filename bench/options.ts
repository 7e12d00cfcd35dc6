// The bench's command line: what is measured, how long, and where the results go. The help is in scripts/bench, which reads the names by it
// before anything is built.
import { parseArgs } from 'node:util'
import { parseSize } from '../src/core/units.js'

export const partNames = ['peers', 'cow', 'size', 'connections', 'replication', 'wire'] as const
export type PartName = (typeof partNames)[number]

export const serverNames = ['lockstep', 'nbdkit', 'qemu-nbd', 'nbd-server'] as const
export type ServerName = (typeof serverNames)[number]

/** What the two nodes of replication are connected by. */
export const lineNames = ['tcp', 'unix'] as const
export type LineName = (typeof lineNames)[number]

export type Options = {
  readonly part: PartName
  readonly runCount: number
  readonly seconds: number
  readonly sizeBytes: number
  readonly only: readonly RegExp[]
  readonly servers: readonly ServerName[]
  readonly line: LineName
  readonly directory: string
  readonly jsonPath: string | undefined
  /** True when the results are complete enough for docs/BENCHMARKS.md. */
  readonly isForDocument: boolean
  readonly commandLine: string
}

/** Throws an Error with a sentence for people. */
export function parseOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      part: { type: 'string', default: 'peers' },
      runs: { type: 'string' },
      seconds: { type: 'string' },
      size: { type: 'string' },
      only: { type: 'string', multiple: true, default: [] },
      servers: { type: 'string' },
      line: { type: 'string', default: 'tcp' },
      quick: { type: 'boolean', default: false },
      dir: { type: 'string', default: '/var/tmp' },
      json: { type: 'string' },
      'no-document': { type: 'boolean', default: false },
    },
  })
  const isPartial = values.quick || values.only.length > 0 || values.servers !== undefined
  return {
    part: oneOf(partNames, values.part, '--part'),
    runCount: wholeNumber(values.runs ?? (values.quick ? '1' : '5'), '--runs'),
    seconds: wholeNumber(values.seconds ?? (values.quick ? '1' : '3'), '--seconds'),
    sizeBytes: size(values.size ?? (values.quick ? '256M' : '1G')),
    only: values.only.map((pattern) => new RegExp(`^${pattern}$`)),
    servers: (values.servers?.split(',') ?? serverNames).map((name) =>
      oneOf(serverNames, name, '--servers'),
    ),
    line: oneOf(lineNames, values.line, '--line'),
    directory: values.dir,
    jsonPath: values.json,
    isForDocument: !isPartial && !values['no-document'],
    commandLine: ['scripts/bench', ...withoutPlaces(args)].join(' '),
  }
}

/** Without what is of this machine only: where the raw results went, and where the files were. */
function withoutPlaces(args: readonly string[]): readonly string[] {
  const isPlace = (arg: string | undefined): boolean => arg === '--json' || arg === '--dir'
  return args.filter((arg, index) => !/^--(json|dir)(=|$)/.test(arg) && !isPlace(args[index - 1]))
}

function oneOf<Name extends string>(names: readonly Name[], name: string, option: string): Name {
  const found = names.find((known) => known === name)
  if (found === undefined) throw new Error(`${option} takes ${names.join(', ')}, not '${name}'`)
  return found
}

function wholeNumber(text: string, option: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new Error(`${option} takes a number from 1 on`)
  return value
}

function size(text: string): number {
  const sizeBytes = parseSize(text)
  if (sizeBytes === undefined || sizeBytes < 1024 * 1024 || sizeBytes % (1024 * 1024) !== 0) {
    throw new Error(`--size takes whole MiB, like 256M or 1G, not '${text}'`)
  }
  return sizeBytes
}
