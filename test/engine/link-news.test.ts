// A link that is down for long leaves the event log to others, and hides nothing that is new.
import t from 'tap'
import { LinkNewsFilter } from '../../src/engine/link-news.js'
import type { LinkState } from '../../src/replication/link-state.js'
import { EnginePair } from '../support/engine-pair.js'

const tell = (filter: LinkNewsFilter, ...changes: readonly (readonly [LinkState, string])[]) =>
  changes.flatMap(([link, reason]) =>
    filter.changed({ link, reason }).map((news) => `${news.link}: ${news.reason}`),
  )

t.test('an attempt is told with what came of it', (t) => {
  const filter = new LinkNewsFilter()
  t.same(tell(filter, ['connecting', 'trying'], ['greeting', 'connected']), [])
  t.same(tell(filter, ['streaming', 'in step']), [
    'connecting: trying',
    'greeting: connected',
    'streaming: in step',
  ])
  t.same(tell(filter, ['offline', 'it was cut']), ['offline: it was cut'])
  t.end()
})

t.test('attempts that come to the same are told once', (t) => {
  const filter = new LinkNewsFilter()
  const attempt = [
    ['connecting', 'trying'],
    ['offline', 'nobody listens'],
  ] as const
  t.same(tell(filter, ...attempt), ['connecting: trying', 'offline: nobody listens'])
  t.same(tell(filter, ...attempt, ...attempt), [])
  t.same(tell(filter, ['connecting', 'trying'], ['offline', 'no answer']), [
    'connecting: trying',
    'offline: no answer',
  ])
  t.same(tell(filter, ...attempt).length, 2, 'what was told before the last is news again')
  t.end()
})

t.test('a peer that is away for an hour costs a few events', async (t) => {
  const pair = await EnginePair.inSync()
  pair.b.crash()
  await pair.until(() => ['offline', 'connecting'].includes(pair.a.link), 'b is gone')
  const count = () => pair.a.engine.recentEvents().length
  await pair.scheduler.settle(60_000)
  const before = count()
  await pair.scheduler.settle(3_600_000)
  t.equal(count(), before)
  await pair.b.start()
  await pair.sync()
  t.match(pair.a.engine.recentEvents().at(-1)?.message, /^link streaming/)
  await pair.same()
  await pair.close()
})
