// Progress as people see it: a bar that is drawn over on a terminal, a line for each tenth elsewhere, nothing in JSON.
import t from 'tap'
import { Output, type Terminal } from '../../../src/app/cli/output.js'
import { ProgressTeller } from '../../../src/app/cli/progress.js'

function start(options: { readonly isTTY: boolean; readonly isJson?: boolean }) {
  const written: string[] = []
  const stream = { isTTY: options.isTTY, columns: 100, write: (text: string) => written.push(text) }
  const terminal = { stdout: stream, stderr: stream, stdin: stream } as unknown as Terminal
  const output = new Output({ isJson: options.isJson ?? false, terminal, environment: {} })
  const clock = { nowMs: 0 }
  const teller = new ProgressTeller(output, () => clock.nowMs)
  return { written, teller, clock }
}

const MiB = 1024 * 1024

t.test('on a terminal the bar is drawn over, with rate and time left, and goes', async (t) => {
  const { written, teller, clock } = start({ isTTY: true })
  teller.tell({ store: 'v', doneBytes: 0, totalBytes: 100 * MiB })
  t.match(written[0], /^\rv: \[\.+\] 0 %, 0 bytes of 100 MiB/)
  t.notMatch(written[0], /left/, 'no rate yet')
  t.ok(written[0]?.endsWith('\u001b[K'))
  clock.nowMs = 1000
  teller.tell({ store: 'v', doneBytes: 25 * MiB, totalBytes: 100 * MiB })
  t.match(written[1], /\[######\.+\] 25 %, 25 MiB of 100 MiB, 25 MiB\/s, 3 s left/)
  teller.end()
  t.equal(written[2], '\r\u001b[K')
})

t.test('elsewhere there is a line for each tenth; in JSON none', async (t) => {
  const { written, teller } = start({ isTTY: false })
  for (let done = 0; done <= 100; done += 5)
    teller.tell({ store: 'v', doneBytes: done, totalBytes: 100 })
  teller.end()
  t.equal(written.length, 11)
  t.equal(written.at(-1), 'v: compared 100 % of 100 bytes\n')
  const json = start({ isTTY: true, isJson: true })
  json.teller.tell({ store: 'v', doneBytes: 1, totalBytes: 2 })
  json.teller.end()
  t.same(json.written, [])
})
