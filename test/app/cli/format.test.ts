// Answers as text: the shape that people read.
import t from 'tap'
import {
  complaintsOf,
  dirtyText,
  doctorText,
  picture,
  statusText,
  storeTable,
  unhealthyText,
} from '../../../src/app/cli/format.js'
import { table } from '../../../src/app/cli/table.js'
import type { DaemonStatus } from '../../../src/control/api.js'
import { EngineDouble } from '../../support/engine-double.js'

const plain = (_style: string, text: string): string => text

function statusOf(change: Partial<DaemonStatus> = {}): DaemonStatus {
  const engine = new EngineDouble()
  engine.addVolume('vol0', 1073741824)
  const listeners = ['nbd://127.0.0.1:10809']
  return { ...engine.status(), listeners, version: '1', pid: 1, ...change }
}

t.test('a table is as wide as its widest cells', (t) => {
  const rows = [
    ['NAME', 'SIZE'],
    ['a', '1 GiB'],
    ['longer', '5'],
  ]
  t.equal(table(rows, [1]), 'NAME     SIZE\na       1 GiB\nlonger      5')
  t.equal(storeTable([]), '')
  t.end()
})

t.test('status has a line for each thing, and no complaint when all is well', (t) => {
  const text = statusText(statusOf(), plain)
  t.match(text, / node: double \(primary\)/)
  t.match(text, /state: healthy/)
  t.match(text, /listening: nbd:\/\/127\.0\.0\.1:10809/)
  t.match(text, /vol0 +1 GiB +0 bytes/)
  t.notMatch(text, /action:/)
  t.equal(unhealthyText(statusOf(), plain), 'double is healthy')
  t.end()
})

t.test('a file system that is about to be full is a complaint', (t) => {
  const space = (freeBytes: number) => ({ fileSystem: { sizeBytes: 2 ** 40, freeBytes } })
  t.same(complaintsOf(statusOf(space(64 * 2 ** 20))), [])
  const [complaint] = complaintsOf(statusOf(space(2 ** 20)))
  t.match(complaint?.status, /has 1 MiB left; writes that need room fail/)
  t.match(complaint?.action, /fstrim.*lockstep volume delete NAME; or make the file system larger/)
  const [volume] = statusOf().stores
  if (volume === undefined) throw new Error('no volume')
  const actionWith = (role: 'primary' | 'secondary', ...names: readonly string[]) => {
    const stores = [volume, ...names.map((name) => ({ ...volume, name, snapshotOf: 'vol0' }))]
    return complaintsOf(statusOf({ ...space(2 ** 20), role, stores }))[0]?.action ?? ''
  }
  t.match(actionWith('primary', 'vol0@a'), /^delete snapshots: lockstep snapshot list/)
  t.match(actionWith('secondary', 'vol0@a'), /^make the file system larger; .* on the primary/)
  const own = actionWith('secondary', 'vol0@a', 'vol0@before-resync', 'vol0@local.m')
  t.match(own, /^delete what only this node keeps: lockstep snapshot delete vol0@local\.m; or make/)
  t.end()
})

t.test('a failure and a full pool are told with what to type', (t) => {
  const failure = { message: 'a sync failed', action: 'restart the daemon' }
  const pool = {
    usedBytes: 96,
    sizeBytes: 100,
    sharedBytes: 0,
    journalBytes: 1,
    journalUsedBytes: 0,
  }
  const status = statusOf({ failure, pool })
  t.equal(complaintsOf(status).length, 2)
  const text = statusText(status, plain)
  t.match(text, /state: needs attention/)
  t.match(text, / {3}status: a sync failed\n {3}action: restart the daemon/)
  t.match(text, /full to 96 %/)
  t.match(unhealthyText(status, plain), /action: restart the daemon/)
  t.notMatch(unhealthyText(status, plain), /listening/)
  t.end()
})

t.test('a picture has a character a cell, and a trace of the smallest difference', (t) => {
  t.equal(picture([0, 0.001, 0.5, 0.99, 1]), ' ▁▄██')
  const report = { store: 'vol0', sizeBytes: 1048576, dirtyBytes: 65536, picture: [1, 0] }
  t.equal(
    dirtyText([{ ...report, since: 'vol0@a' }]),
    'vol0: 64 KiB of 1 MiB (6 %) changed since vol0@a\n  [█ ]',
  )
  t.match(dirtyText([report]), /\(6 %\) allocated \(it has no snapshot to compare with\)\n/)
  t.equal(
    dirtyText([{ ...report, differingBytes: 4096 }], [{ link: 'streaming' }]),
    'vol0: 64 KiB of 1 MiB (6 %) may differ on the peer\n  [█ ]\n  verify found 4 KiB of it: lockstep verify vol0 --repair',
  )
  const snapshots = ['vol0@a', 'vol0@b', 'vol0@c']
  const lines = (dirtySnapshots: readonly string[]) =>
    dirtyText([{ ...report, dirtySnapshots }], [{ link: 'offline' }]).split('\n')
  t.equal(lines(snapshots.slice(0, 1))[2], '  so may vol0@a: lockstep dirty vol0@a')
  t.match(lines(snapshots)[2], 'so may vol0@a and 2 more of its snapshots: lockstep dirty vol0@a')
  t.equal(dirtyText([]), 'no volumes')
  t.end()
})

t.test('a disk that does not answer is unhealthy', (t) => {
  const text = unhealthyText(statusOf({ diskSilentSeconds: 12 }), plain)
  t.match(text, /status: the disk of this node has not answered for 12 s/)
  t.match(text, /action: look at the device: dmesg/)
  t.end()
})

t.test('a finding of doctor has its action below', (t) => {
  const checks = [
    { name: 'a', result: 'ok', message: 'well' },
    { name: 'b', result: 'wrong', message: 'ill', action: 'rest' },
  ] as const
  t.equal(doctorText(checks, plain), 'ok    a: well\nWRONG b: ill\n        try: rest')
  t.end()
})
