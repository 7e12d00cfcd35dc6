// The commands that take several stores at once: sync and batch.
import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { batchOperations, isOperationKind } from '../../control/methods.js'
import { FieldError } from '../../control/schema.js'
import { type ExitCode, errnoNameOf } from '../../core/errors.js'
import {
  checkOperationWords,
  placeInBatch,
  type SingleRequest,
} from '../../core/operation-words.js'
import { type Command, type Context, yesOption } from './command.js'
import { confirm } from './confirm.js'
import { operation, perform } from './perform.js'
import { askPrimary, newSizeText, partText, storeOf } from './query.js'
import { rangeOption } from './snapshot.js'
import { ofWords, UsageError } from './usage-error.js'
import { readRange } from './values.js'

export const copyCommands: readonly Command[] = [
  {
    name: 'sync',
    summary: 'makes a store, or a range of it, what another one is',
    positionals: [
      { name: 'source', description: 'the store that is read' },
      { name: 'target', description: 'the store that is overwritten' },
    ],
    options: { ...rangeOption, ...yesOption },
    examples: [['lockstep sync vol0@monday test', 'test becomes what vol0 was on monday']],
    run: syncStores,
  },
  {
    name: 'batch',
    summary: 'performs a set of operations at one position: all or none',
    positionals: [
      { name: 'file', description: 'a JSON array of operations; - is stdin', completion: 'file' },
    ],
    options: yesOption,
    examples: [
      [
        `echo '[{"kind":"snapshot.delete","store":"vol0@a"}]' | lockstep batch - --yes`,
        'operations are written as on the control socket, with "kind" for the method',
      ],
    ],
    run: performBatch,
  },
]

async function syncStores(context: Context): Promise<ExitCode> {
  const source = context.arguments.text('source')
  const target = context.arguments.text('target')
  const range = readRange(context.arguments.maybeText('range'))
  const part = range === undefined ? {} : { range }
  const request = operation({ kind: 'sync', source, target, ...part })
  const { stores } = await askPrimary(context)
  const { sizeBytes } = storeOf(stores, target)
  const becomesBytes = stores.find(({ name }) => name === source)?.sizeBytes ?? sizeBytes
  const size = range === undefined ? newSizeText(target, sizeBytes, becomesBytes) : ''
  const lost = `${partText(target, range, sizeBytes)} will be overwritten from ${source}${size}`
  await confirm(context, { lost, name: target, request })
  const done = `overwrote ${partText(target, range, becomesBytes)} from ${source}`
  return perform(context, request, { done, isConfirmed: true })
}

async function performBatch(context: Context): Promise<ExitCode> {
  const file = context.arguments.text('file')
  const operations = readBatch(await readText(file, context.output.terminal.stdin), file)
  const { stores } = await askPrimary(context)
  const sizes = new Map(stores.map((store) => [store.name, store.sizeBytes]))
  const losses = operations.flatMap((one) => lossOf(one, sizes) ?? [])
  const isConfirmed = losses.length > 0
  const request = { kind: 'batch', operations } as const
  if (isConfirmed) {
    const lost = `will be lost: ${losses.join('; ')}`
    await confirm(context, { lost, name: 'batch', request })
  }
  const done = `performed ${operations.length} operation${operations.length === 1 ? '' : 's'}`
  return perform(context, request, { done, isConfirmed })
}

async function readText(file: string, stdin: NodeJS.ReadStream): Promise<string> {
  try {
    // Not opened by its name: a socket cannot be.
    return file === '-' || file === '/dev/stdin' ? await text(stdin) : await readFile(file, 'utf8')
  } catch (error) {
    const reason = errnoNameOf(error)
    throw new UsageError(`${file} cannot be read: ${reason}`, 'name a file, or - for stdin')
  }
}

function readBatch(text: string, file: string): readonly SingleRequest[] {
  const action = 'write [{"kind":"snapshot.create","stores":["vol0"],"name":"a"}, …]'
  const source = file === '-' || file === '/dev/stdin' ? 'standard input' : file
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    throw new UsageError(`${source} is not JSON: ${reason.slice(0, 200)}`, action)
  }
  let operations: readonly SingleRequest[]
  try {
    operations = batchOperations(value, 'operations')
  } catch (error) {
    if (!(error instanceof FieldError)) throw error
    throw new UsageError(`${source}: ${inPlace(error.message, value)}`, action)
  }
  for (const [index, one] of operations.entries())
    ofWords(() => checkOperationWords(one), `${source}: ${placeInBatch(one.kind, index)}: `)
  return operations
}

/** `operations[1].name must be …` as people count and call it: `operation 2 (volume.create): name must be …`. */
function inPlace(message: string, value: unknown): string {
  const found = /^operations(?:\[(\d+)\](\.?))?/.exec(message)
  const rest = message.slice(found?.[0].length ?? 0)
  if (found?.[1] === undefined) return `the batch${rest}`
  const index = Number(found[1])
  const { kind } = Object((value as readonly unknown[])[index]) as { readonly kind?: unknown }
  const place = placeInBatch(isOperationKind(kind) ? kind : undefined, index)
  return found[2] === '' ? `${place}${rest}` : `${place}: ${rest}`
}

/** What an operation destroys, in words; undefined when it only adds. */
function lossOf(operation: SingleRequest, sizes: ReadonlyMap<string, number>): string | undefined {
  switch (operation.kind) {
    case 'volume.delete':
      return operation.name
    case 'snapshot.delete':
      return operation.store
    case 'snapshot.restore':
      return `what the volume of ${operation.store} holds now`
    case 'snapshot.refresh':
      return `what ${operation.store} holds now`
    case 'sync':
      return `what ${operation.target} holds now`
    case 'volume.resize':
      return operation.sizeBytes < (sizes.get(operation.name) ?? 0)
        ? `the end of ${operation.name}`
        : undefined
    default:
      return undefined
  }
}
