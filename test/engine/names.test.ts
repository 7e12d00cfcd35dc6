// Names of stores: the way from a name to a store or to a helpful refusal.
import t from 'tap'
import {
  findStore,
  snapshotNamed,
  snapshotsOf,
  storeNamed,
  volumeNamed,
} from '../../src/engine/names.js'
import { thrownBy } from '../support/failure.js'
import { Group } from '../support/group.js'

function refusal(call: () => unknown): string {
  const error = thrownBy(call) as { code?: string; message?: string; action?: string }
  return `${error.code}: ${error.message} > ${error.action}`
}

t.test('stores are found by their full names', async (t) => {
  const group = new Group()
  const v = group.volume('v', 512)
  const w = group.volume('w', 512)
  const va = group.snapshot('v@a')
  const wa = group.snapshot('w@a')
  const { state } = group
  t.equal(findStore(state, 'v@a'), va)
  t.equal(storeNamed(state, 'w@a'), wa)
  t.equal(volumeNamed(state, 'v'), v)
  t.equal(snapshotNamed(state, 'v@a'), va)
  t.strictSame(snapshotsOf(state, v), [va])
  t.strictSame(snapshotsOf(state, w), [wa])
  for (const name of ['', 'a', 'v@', '@a', 'v@b', 'V', 'v@a@a', 'v '])
    t.equal(findStore(state, name), undefined, name)
})

t.test('a refusal says what there is', async (t) => {
  const group = new Group()
  const { state } = group
  t.match(
    refusal(() => storeNamed(state, 'v')),
    /^NO_SUCH_STORE: .*"v" > .*lockstep volume create/,
  )
  group.volume('v', 512)
  t.match(
    refusal(() => snapshotNamed(state, 'v')),
    /is a volume, not a snapshot > .*lockstep snapshot create v@NAME/,
  )
  group.snapshot('v@a')
  t.match(
    refusal(() => storeNamed(state, 'x')),
    /"x" > one of v$/,
  )
  t.match(
    refusal(() => volumeNamed(state, 'v@a')),
    /is a snapshot, not a volume > .*part before the @/,
  )
  t.match(
    refusal(() => snapshotNamed(state, 'v')),
    /its snapshots: v@a$/,
  )
  t.match(
    refusal(() => snapshotNamed(state, 'v@x')),
    /"v@x" > one of v@a$/,
  )
  for (let index = 0; index < 20; index++) group.volume(`w${index}`, 512)
  const said = refusal(() => storeNamed(state, 'x'.repeat(100_000)))
  t.ok(said.length < 600, 'however long the name and the list')
  t.match(said, /one of v, w0, .*, w8, … \(lockstep status shows them all\)$/)
})
