// The bench's command line: defaults, shortcuts, refusals, and what may go into the document.
import t from 'tap'
import { parseOptions } from '../../bench/options.js'

const parsed = (...args: string[]) => parseOptions(args)

t.test('without options all jobs run five times', async (t) => {
  const options = parsed()
  t.match(options, { part: 'peers', runCount: 5, seconds: 3, sizeBytes: 2 ** 30, only: [] })
  t.equal(options.isForDocument, true)
  t.equal(options.commandLine, 'scripts/bench')
})

t.test('a quick run is short, and not for the document', async (t) => {
  t.match(parsed('--quick'), { runCount: 1, seconds: 1, sizeBytes: 2 ** 28, isForDocument: false })
  t.match(parsed('--quick', '--runs', '3'), { runCount: 3, seconds: 1 })
})

t.test('a part of the jobs or of the servers is not for the document', async (t) => {
  t.equal(parsed('--only', 'unix-.*').isForDocument, false)
  t.equal(parsed('--servers', 'lockstep,nbdkit').isForDocument, false)
  t.equal(parsed('--no-document').isForDocument, false)
  t.equal(parsed('--runs', '7', '--size', '2G').isForDocument, true)
})

t.test('what cannot be is refused with what can', async (t) => {
  t.throws(() => parsed('--part', 'all'), {
    message: /peers, cow, size, connections, replication, wire/,
  })
  t.throws(() => parsed('--servers', 'lockstep,ghost'), { message: /not 'ghost'/ })
  t.throws(() => parsed('--line', 'rdma'), { message: /tcp, unix/ })
  t.throws(() => parsed('--runs', '0'), { message: /--runs takes a number from 1/ })
  t.throws(() => parsed('--size', '1000'), { message: /whole MiB/ })
  t.throws(() => parsed('--speed'), { code: 'ERR_PARSE_ARGS_UNKNOWN_OPTION' })
})

t.test('the command in the document names no place of one machine', async (t) => {
  const options = parsed('--runs', '3', '--json', '/tmp/r', '--dir=/srv', '--part', 'wire')
  t.equal(options.commandLine, 'scripts/bench --runs 3 --part wire')
  t.match(options, { jsonPath: '/tmp/r', directory: '/srv' })
})
