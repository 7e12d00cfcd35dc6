// The commands on volumes.
import { ExitCode } from '../../core/errors.js'
import { formatBytes } from '../../core/units.js'
import type { StoreStatus } from '../../engine/api.js'
import { type Command, yesOption } from './command.js'
import { confirm } from './confirm.js'
import { storeTable } from './format.js'
import { operation, perform } from './perform.js'
import { ask, askVolume } from './query.js'
import { readVolumeSize } from './values.js'

const volumePositional = { name: 'name', description: 'the volume' } as const
const sizePositional = {
  name: 'size',
  description: 'bytes, or with K, M, G, T: 512, 64K, 10G (binary)',
} as const

export const volumeCommands: readonly Command[] = [
  {
    name: 'volume create',
    summary: 'creates a volume of zeroes',
    positionals: [{ name: 'name', description: 'the new name' }, sizePositional],
    examples: [['lockstep volume create vol0 10G', 'a volume of 10 GiB, which takes no space yet']],
    async run(context) {
      const name = context.arguments.text('name')
      const sizeBytes = readVolumeSize(context.arguments.text('size'))
      const request = operation({ kind: 'volume.create', name, sizeBytes })
      return perform(context, request, { done: `created ${name}, ${formatBytes(sizeBytes)},` })
    },
  },
  {
    name: 'volume list',
    summary: 'lists the volumes',
    examples: [['lockstep volume list --json', 'for scripts']],
    async run(context) {
      const result = (await ask(context, 'volume.list')) as { volumes: readonly StoreStatus[] }
      const none = 'no volumes; lockstep volume create vol0 1G makes one'
      context.output.result(result, storeTable(result.volumes) || none)
      return ExitCode.DONE
    },
  },
  {
    name: 'volume delete',
    summary: 'deletes a volume and all its data',
    positionals: [volumePositional],
    options: yesOption,
    examples: [['lockstep volume delete vol0', 'asks for the name first']],
    async run(context) {
      const name = context.arguments.text('name')
      const request = operation({ kind: 'volume.delete', name })
      const store = await askVolume(context, name)
      const allocated = formatBytes(store.allocatedBytes)
      const lost = `${name} with all its data (${allocated} of ${formatBytes(store.sizeBytes)} in use) will be lost`
      await confirm(context, { lost, name, request })
      return perform(context, request, { done: `deleted ${name}`, isConfirmed: true })
    },
  },
  {
    name: 'volume rename',
    summary: 'renames a volume, and with it its snapshots',
    positionals: [volumePositional, { name: 'new', description: 'the new name' }],
    examples: [['lockstep volume rename vol0 mail', 'vol0@monday becomes mail@monday']],
    async run(context) {
      const name = context.arguments.text('name')
      const newName = context.arguments.text('new')
      const request = operation({ kind: 'volume.rename', name, newName })
      return perform(context, request, { done: `renamed ${name} to ${newName}` })
    },
  },
  {
    name: 'volume resize',
    summary: 'makes a volume longer, or cuts it',
    positionals: [volumePositional, { ...sizePositional, description: 'the new size' }],
    options: yesOption,
    examples: [['lockstep volume resize vol0 20G', 'the new part is zeroes']],
    async run(context) {
      const name = context.arguments.text('name')
      const sizeBytes = readVolumeSize(context.arguments.text('size'))
      const request = operation({ kind: 'volume.resize', name, sizeBytes })
      const store = await askVolume(context, name)
      const isConfirmed = sizeBytes < store.sizeBytes
      if (isConfirmed) {
        const cut = formatBytes(store.sizeBytes - sizeBytes)
        const lost = `the last ${cut} of ${name} (all from byte ${sizeBytes} on) will be lost`
        await confirm(context, { lost, name, request })
      }
      const done = `resized ${name} from ${formatBytes(store.sizeBytes)} to ${formatBytes(sizeBytes)}`
      return perform(context, request, { done, isConfirmed })
    },
  },
]
