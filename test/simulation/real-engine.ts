// The real engine as a subject of the checkers, also on a disk that forgets some of its calls: each of them must turn out to be needed.
import type { Disk } from '../../src/core/disk.js'
import { Engine, initGroup } from '../../src/engine/engine.js'
import type { Subject } from './subject.js'

export const realSubject: Subject = {
  name: 'lockstep',
  init: initGroup,
  open: (options) => Engine.open(options),
}

export type ForgottenCall = 'without directory syncs' | 'without checkpoint syncs'

export function withoutSyncs(forgotten: ForgottenCall): Subject {
  return {
    ...realSubject,
    name: forgotten,
    open: (options) => Engine.open({ ...options, disk: forgetful(options.disk, forgotten) }),
  }
}

function forgetful(disk: Disk, forgotten: ForgottenCall): Disk {
  const isDirectory = forgotten === 'without directory syncs'
  return {
    open: async (name, options) => {
      const file = await disk.open(name, options)
      if (!isDirectory && name.startsWith('checkpoint')) file.sync = () => Promise.resolve()
      return file
    },
    rename: (from, to) => disk.rename(from, to),
    remove: (name) => disk.remove(name),
    list: () => disk.list(),
    syncDirectory: () => (isDirectory ? Promise.resolve() : disk.syncDirectory()),
  }
}
