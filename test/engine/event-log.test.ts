// The last thousand events, and those who listen.
import t from 'tap'
import type { EngineEvent } from '../../src/engine/api.js'
import { EventLog } from '../../src/engine/event-log.js'
import { Life, Scheduler } from '../simulation/sim-clock.js'

const clock = new Scheduler().clockOf(new Life())

t.test('events are dated, and kept in order', async (t) => {
  const log = new EventLog(clock)
  log.add({ kind: 'started', message: 'a' })
  const before = log.recent()
  log.add({ kind: 'operation', message: 'b' })
  t.strictSame(
    log.recent().map(({ message, at }) => [message, at]),
    ['a', 'b'].map((message) => [message, '2024-01-01T00:00:00.000Z']),
  )
  t.equal(before.length, 1, 'an answer does not grow')
})

t.test('the oldest go when there are too many', async (t) => {
  const log = new EventLog(clock)
  for (let index = 0; index < 2500; index++) log.add({ kind: 'operation', message: `${index}` })
  const messages = log.recent().map(({ message }) => Number(message))
  t.strictSame([messages.length, messages[0], messages.at(-1)], [1000, 1500, 2499])
})

t.test('who listens hears what follows, until it stops', async (t) => {
  const log = new EventLog(clock)
  log.add({ kind: 'operation', message: 'before' })
  const heard: EngineEvent[] = []
  const stop = log.subscribe((event) => heard.push(event))
  log.add({ kind: 'operation', message: 'a' })
  stop()
  stop()
  log.add({ kind: 'operation', message: 'b' })
  t.strictSame(
    heard.map(({ message }) => message),
    ['a'],
  )
})
