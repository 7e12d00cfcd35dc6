// What is offered to people whose data directory is damaged: a backup, and the other node's copy where there may be one.
import t from 'tap'
import { LockstepError } from '../../src/core/errors.js'
import { damaged, offeringPeer } from '../../src/storage/corrupt.js'
import type { GroupState } from '../../src/storage/group-state.js'

const backup = 'nothing was changed; restore the data directory from a backup'
const renewal =
  'make a new secondary of its peer in another directory: lockstep init NEW-DIR --secondary'

t.test('a copy of the other node is offered only where there may be one', (t) => {
  const peer = { nodeId: 'b', acknowledged: undefined }
  const actionWith = (state: Pick<GroupState, 'role' | 'peer'> | undefined) => {
    const found = offeringPeer(damaged('it is'), state as GroupState | undefined)
    return found instanceof LockstepError && found.code === 'CORRUPT' ? found.action : found
  }
  t.equal(actionWith({ role: 'primary', peer: undefined }), backup)
  t.equal(actionWith({ role: 'primary', peer }), `${backup}, or ${renewal}`)
  t.equal(actionWith({ role: 'secondary', peer: undefined }), `${backup}, or ${renewal}`)
  t.equal(actionWith(undefined), `${backup}, or, if it has a peer, ${renewal}`)
  t.end()
})

t.test('other errors stay as they are', (t) => {
  const full = new LockstepError('NO_SPACE', 'full', 'make room')
  for (const error of [full, new Error('x'), undefined])
    t.equal(offeringPeer(error, undefined), error)
  t.end()
})
