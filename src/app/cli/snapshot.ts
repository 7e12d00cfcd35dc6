// The commands on snapshots.
import assert from 'node:assert/strict'
import { ExitCode, notPrimary } from '../../core/errors.js'
import { checkVolumeName, isReserved } from '../../core/store-name.js'
import type { OperationResult, StoreStatus } from '../../engine/api.js'
import { type Command, type Context, yesOption } from './command.js'
import { confirm } from './confirm.js'
import { storeTable } from './format.js'
import { operation, perform } from './perform.js'
import { ask, askPrimary, askStatus, newSizeText, partText, storeOf } from './query.js'
import { ofWords, UsageError } from './usage-error.js'
import { readNewSnapshot, readRange } from './values.js'

const snapshotPositional = { name: 'snapshot', description: 'VOLUME@SNAPSHOT' } as const
export const rangeOption = {
  range: {
    type: 'text',
    placeholder: 'OFFSET:LENGTH',
    description: 'only these bytes, such as 0:64K',
    completion: 'none',
  },
} as const

export const snapshotCommands: readonly Command[] = [
  {
    name: 'snapshot create',
    summary: 'keeps what one store or several hold now, all at one position',
    positionals: [
      {
        name: 'snapshots',
        description: 'VOLUME@SNAPSHOT, one or several with one name; with --all the name alone',
        isRepeated: true,
      },
    ],
    options: { all: { type: 'flag', description: 'every volume of the group' } },
    examples: [
      ['lockstep snapshot create vol0@monday', 'takes milliseconds at any size'],
      ['lockstep snapshot create mail@a database@a', 'both at one position'],
      ['lockstep snapshot create --all monday', 'the whole group'],
    ],
    run: createSnapshots,
  },
  {
    name: 'snapshot list',
    summary: 'lists the snapshots, of one volume or of all',
    positionals: [{ name: 'volume', description: 'only of this volume', isOptional: true }],
    examples: [['lockstep snapshot list vol0', 'with sizes and positions']],
    async run(context) {
      const volume = context.arguments.maybeText('volume')
      if (volume !== undefined) ofWords(() => checkVolumeName(volume))
      const params = volume === undefined ? {} : { volume }
      const result = (await ask(context, 'snapshot.list', params)) as {
        snapshots: readonly StoreStatus[]
      }
      const none = `no snapshots; lockstep snapshot create ${volume ?? 'VOLUME'}@NAME makes one`
      context.output.result(result, storeTable(result.snapshots) || none)
      return ExitCode.DONE
    },
  },
  {
    name: 'snapshot delete',
    summary: 'deletes a snapshot; its volume stays as it is',
    positionals: [snapshotPositional],
    options: yesOption,
    examples: [['lockstep snapshot delete vol0@monday --yes', 'without asking']],
    async run(context) {
      const name = context.arguments.text('snapshot')
      const request = operation({ kind: 'snapshot.delete', store: name })
      const store = await deletable(context, name)
      const lost = `${name} (created ${store.createdAt}, ${momentOf(store)}) will be lost`
      await confirm(context, { lost, name, request })
      return perform(context, request, { done: `deleted ${name}`, isConfirmed: true })
    },
  },
  {
    name: 'snapshot rename',
    summary: 'gives a snapshot a new name after the @',
    positionals: [snapshotPositional, { name: 'new', description: 'the new name' }],
    examples: [['lockstep snapshot rename vol0@monday before-upgrade', '']],
    async run(context) {
      const store = context.arguments.text('snapshot')
      const typed = context.arguments.text('new')
      const prefix = `${volumeOf(store)}@`
      const newName = typed.startsWith(prefix) ? typed.slice(prefix.length) : typed
      const request = operation({ kind: 'snapshot.rename', store, newName })
      return perform(context, request, { done: `renamed ${store} to ${prefix}${newName}` })
    },
  },
  {
    name: 'snapshot restore',
    summary: 'makes the volume, or a range of it, what the snapshot is',
    positionals: [snapshotPositional],
    options: { ...rangeOption, ...yesOption },
    examples: [
      ['lockstep snapshot restore vol0@monday', 'the snapshot stays'],
      ['lockstep snapshot restore vol0@monday --range 1M:64K', 'only 64 KiB from 1 MiB on'],
    ],
    run: restoreSnapshot,
  },
  {
    name: 'snapshot refresh',
    summary: 'makes the snapshot what its volume is now',
    positionals: [snapshotPositional],
    options: yesOption,
    examples: [['lockstep snapshot refresh vol0@monday', 'what it held before is gone']],
    async run(context) {
      const store = context.arguments.text('snapshot')
      const request = operation({ kind: 'snapshot.refresh', store })
      const { stores } = await askPrimary(context)
      const found = storeOf(stores, store)
      const lost = `what ${store} holds (${momentOf(found)}) will be lost: it becomes what ${found.snapshotOf} is now`
      await confirm(context, { lost, name: store, request })
      return perform(context, request, { done: `refreshed ${store}`, isConfirmed: true })
    },
  },
]

/** On a secondary what it keeps for itself. Rejects with NO_SUCH_STORE or NOT_PRIMARY. */
async function deletable(context: Context, name: string): Promise<StoreStatus> {
  const { stores, role } = await askStatus(context)
  const store = storeOf(stores, name)
  if (role === 'secondary' && !isReserved(name.slice(name.indexOf('@') + 1))) throw notPrimary()
  return store
}

/** The part of a snapshot's name before the `@`. */
function volumeOf(snapshot: string): string {
  return snapshot.slice(0, Math.max(0, snapshot.indexOf('@')))
}

/** Whether it was refreshed nobody keeps in mind, nor when: its position is the one of what it holds, of the last refresh where there was one. */
function momentOf({ position }: StoreStatus): string {
  const at = position === undefined ? '' : ` at sequence ${position.sequence}`
  return `taken or last refreshed${at}`
}

async function createSnapshots(context: Context): Promise<ExitCode> {
  const words = context.arguments.texts('snapshots')
  if (context.arguments.isSet('all')) {
    const [name] = words
    if (words.length !== 1 || name === undefined || name.includes('@')) {
      throw new UsageError('--all takes one name', 'lockstep snapshot create --all monday')
    }
    const request = operation({ kind: 'snapshot.create', stores: 'all', name })
    return perform(context, request, { done: `created @${name} of every volume` })
  }
  const parts = words.map(readNewSnapshot)
  const [name, ...others] = new Set(parts.map((part) => part.name))
  assert(name !== undefined)
  const stores = parts.map((part) => part.store)
  if (others.length > 0) {
    const each = [...new Set(stores)].map((store) => `${store}@${name}`)
    throw new UsageError(
      'the snapshots of one command have one name',
      `lockstep snapshot create ${each.join(' ')}, and the others by commands of their own`,
    )
  }
  const request = operation({ kind: 'snapshot.create', stores, name })
  // Of a snapshot of a snapshot the name is another than the one that was typed: it is the volume's.
  const done = (result: OperationResult): string => `created ${result.stores.join(', ')}`
  return perform(context, request, { done })
}

async function restoreSnapshot(context: Context): Promise<ExitCode> {
  const store = context.arguments.text('snapshot')
  const range = readRange(context.arguments.maybeText('range'))
  const part = range === undefined ? {} : { range }
  const request = operation({ kind: 'snapshot.restore', store, ...part })
  const { stores } = await askPrimary(context)
  const snapshot = storeOf(stores, store)
  const { snapshotOf, sizeBytes: becomesBytes } = snapshot
  const volume = snapshotOf ?? volumeOf(store)
  const { sizeBytes } = storeOf(stores, volume)
  const what = partText(volume, range, sizeBytes)
  const size = range === undefined ? newSizeText(volume, sizeBytes, becomesBytes) : ''
  const lost = `what was written to ${what} since ${store} was ${momentOf(snapshot)} will be lost${size}`
  await confirm(context, { lost, name: volume, request })
  const done = `restored ${partText(volume, range, becomesBytes)} from ${store}`
  return perform(context, request, { done, isConfirmed: true })
}
