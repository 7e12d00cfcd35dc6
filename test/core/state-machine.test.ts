// The state machine: only what the table allows, each transition with its reason.
import t from 'tap'
import { StateMachine, type Transition } from '../../src/core/state-machine.js'

type Light = 'red' | 'green' | 'yellow'
const transitions = { red: ['green'], green: ['yellow'], yellow: ['red'] } as const

t.test('a transition carries its reason to whoever listens', async (t) => {
  const seen: Transition<Light>[] = []
  const light = new StateMachine<Light>({
    transitions,
    initial: 'red',
    reason: 'switched on',
    onTransition: (transition) => void seen.push(transition),
  })
  t.equal(light.state, 'red')
  t.equal(light.reason, 'switched on')
  light.go('green', 'nobody crosses')
  light.explain('nobody crosses yet')
  t.equal(light.state, 'green')
  t.equal(light.reason, 'nobody crosses yet')
  t.same(seen, [{ from: 'red', to: 'green', reason: 'nobody crosses' }])
})

t.test('what is not in the table is a fault, and changes nothing', async (t) => {
  const light = new StateMachine<Light>({ transitions, initial: 'red', reason: 'on' })
  t.notOk(light.may('yellow'))
  t.throws(() => light.go('yellow', 'in a hurry'), {
    name: 'AssertionError',
    message: /red -> yellow/,
  })
  t.throws(() => light.go('red', 'again'), { name: 'AssertionError' })
  t.throws(() => light.go('green', ''), { name: 'AssertionError' })
  t.equal(light.state, 'red')
})

t.test('a listener may cause the next transition', async (t) => {
  const light: StateMachine<Light> = new StateMachine<Light>({
    transitions,
    initial: 'red',
    reason: 'on',
    onTransition: ({ to }) => {
      if (to === 'green') light.go('yellow', 'at once')
    },
  })
  light.go('green', 'go')
  t.equal(light.state, 'yellow')
})
