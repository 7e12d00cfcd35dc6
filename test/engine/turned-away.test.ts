// Callers who do not know the secret: told of, and never more often than somebody can read.
import t from 'tap'
import type { TurnedAway } from '../../src/engine/api.js'
import { TurnedAwayCallers } from '../../src/engine/turned-away.js'
import { EnginePair } from '../support/engine-pair.js'
import { ManualClock } from '../support/manual-clock.js'

const why = (kind: TurnedAway['kind'], reason = `for its ${kind}`): TurnedAway => ({
  kind,
  reason,
  action: 'mend it',
})

t.test('any number of callers is one event of a kind in ten minutes', (t) => {
  const clock = new ManualClock()
  const events: string[] = []
  const callers = new TurnedAwayCallers(clock, (message) => events.push(message))
  t.equal(callers.last, undefined)
  for (let count = 0; count < 1000; count++) {
    callers.came(`192.0.2.7:${count}`, why('secret'))
    callers.came(`192.0.2.8:${count}`, why('version', `version ${count}`))
  }
  t.same(events, [
    "a peer's connection from 192.0.2.7:0 was turned away: for its secret",
    "a peer's connection from 192.0.2.8:0 was turned away: version 0",
  ])
  clock.advance(4_000)
  const last = { from: '192.0.2.8:999', reason: 'version 999', action: 'mend it', secondsAgo: 4 }
  t.same(callers.last, last)
  clock.advance(30_000)
  t.equal(callers.last, undefined, 'it has gone')
  clock.advance(600_000)
  callers.came('192.0.2.7:1', why('secret'))
  t.match(events.at(-1), /for its secret \(and 999 like it since the last was told\)$/)
  t.equal(events.length, 3)
  t.end()
})

t.test('a replica shows it while nobody else is connected', async (t) => {
  const pair = await EnginePair.inSync()
  const events = () => pair.b.engine.recentEvents().map(({ message }) => message)
  pair.b.engine.peerTurnedAway('192.0.2.7:5', why('secret'))
  t.equal(pair.b.peer.turnedAway, undefined, 'its primary is there')
  t.match(events().at(-1), /192\.0\.2\.7:5 was turned away: for its secret/)
  pair.a.crash()
  await pair.until(() => pair.b.link === 'offline', 'it is not')
  pair.b.engine.peerTurnedAway('192.0.2.7:6', why('secret'))
  t.match(pair.b.peer.turnedAway, { from: '192.0.2.7:6', reason: 'for its secret' })
  await pair.a.start()
  await pair.sync()
  t.equal(pair.b.peer.turnedAway, undefined)
  await pair.close()
})
