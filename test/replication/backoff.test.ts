// Delays between tries to connect: they double up to the bound, differ between nodes, and begin anew after success.
import t from 'tap'
import { Backoff } from '../../src/replication/backoff.js'

const fixed = (hex: string) => ({ hex: (lengthBytes: number) => hex.repeat(lengthBytes) })

t.test('delays double up to ten seconds', async (t) => {
  const backoff = new Backoff({ random: fixed('ff') })
  const delays = Array.from({ length: 10 }, () => backoff.nextDelayMs())
  t.same(delays, [100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000])
})

t.test('chance takes up to half of each away', async (t) => {
  const backoff = new Backoff({ random: fixed('00') })
  t.same([backoff.nextDelayMs(), backoff.nextDelayMs()], [50, 100])
  const middle = new Backoff({ random: fixed('80'), minMs: 1000, maxMs: 1000 })
  t.equal(middle.nextDelayMs(), 751)
})

t.test('after a connection that worked it begins anew', async (t) => {
  const backoff = new Backoff({ random: fixed('ff') })
  for (let count = 0; count < 5; count++) backoff.nextDelayMs()
  backoff.reset()
  t.equal(backoff.nextDelayMs(), 100)
})
