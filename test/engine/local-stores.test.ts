// Stores that a node keeps for itself: which they are, and what may be deleted.
import t from 'tap'
import {
  checkDeletable,
  isBeforeResync,
  isHidden,
  isMarkSnapshot,
  localSource,
} from '../../src/engine/local-stores.js'
import { findStore, storeNamed, streamStores, volumesOf } from '../../src/engine/names.js'
import { firstLocalId, type Store } from '../../src/storage/group-state.js'
import { thrownBy } from '../support/failure.js'
import { Group } from '../support/group.js'

/** Only what the functions look at. */
const store = (id: number, name: string): Store => ({ id, name }) as unknown as Store
const own = (name: string): Store => store(firstLocalId + 1, name)

t.test('each kind is known by its name, and by its number', async (t) => {
  t.ok(isMarkSnapshot(own('vol0@local.nightly')))
  t.notOk(isMarkSnapshot(own('vol0@before-resync')))
  t.notOk(isMarkSnapshot(store(7, 'local.nightly')), 'of the stream')
  t.ok(isBeforeResync(own('vol0@before-resync')))
  t.ok(isBeforeResync(own('vol0@before-resync.monday')))
  t.notOk(isBeforeResync(own('before@local.resync')))
  t.ok(isHidden(own('.frozen.1.2')))
  t.notOk(isHidden(own('vol0@local.frozen')))
  t.equal(localSource(own('vol0@local.nightly')), 'vol0')
})

t.test('what was there before a resync cannot be deleted', async (t) => {
  checkDeletable(own('vol0@local.a'))
  t.match(
    thrownBy(() => checkDeletable(own('vol0@before-resync'))),
    { code: 'IN_USE', message: /only good copy/ },
  )
})

t.test('they are read by their name, and are in no operation', async (t) => {
  const group = new Group()
  const v = group.volume('v', 512)
  const { state } = group
  state.stores.set(own('').id, own('v@local.a'))
  const hidden = store(firstLocalId + 2, '.frozen.1.1')
  state.stores.set(hidden.id, hidden)
  t.equal(findStore(state, 'v@local.a')?.name, 'v@local.a')
  t.equal(findStore(state, '.frozen.1.1'), undefined)
  t.match(
    thrownBy(() => storeNamed(state, 'v@local.a')),
    { code: 'INVALID_ARGUMENT', action: /lockstep snapshot delete v@local\.a/ },
  )
  t.match(
    thrownBy(() => storeNamed(state, '.frozen.1.1')),
    { code: 'NO_SUCH_STORE', action: 'one of v' },
  )
  t.strictSame(streamStores(state), [v])
  t.strictSame(volumesOf(state), [v])
})
