// The real engine as a subject of the checkers.
import { Engine, initGroup } from '../../src/engine/engine.js'
import type { Subject } from './subject.js'

export const realSubject: Subject = {
  name: 'lockstep',
  init: initGroup,
  open: (options) => Engine.open(options),
}
