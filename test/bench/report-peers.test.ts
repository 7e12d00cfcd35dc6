// The tables of the comparison, from made-up samples: ratios by round, the best peer, the geometric mean.
import t from 'tap'
import type { Job } from '../../bench/jobs.js'
import type { JobResult } from '../../bench/part-peers.js'
import { reportPeers } from '../../bench/report-peers.js'

const job: Job = {
  name: 'unix-4k-randread-32',
  transport: 'unix',
  pattern: 'randread',
  requestBytes: 4096,
  depth: 32,
  isCold: false,
}
const large: Job = { ...job, name: 'unix-1m-read-4', requestBytes: 1024 * 1024, pattern: 'read' }

function samples(...rates: readonly number[]) {
  return rates.map((requestsPerSecond) => ({
    requestsPerSecond,
    bytesPerSecond: 0,
    p99Us: 100,
    cpuUsPerRequest: 5,
  }))
}

const results: readonly JobResult[] = [
  {
    job,
    samples: {
      lockstep: samples(200e3, 100e3),
      nbdkit: samples(100e3, 50e3),
      'qemu-nbd': samples(400e3, 200e3),
    },
  },
  {
    job: large,
    samples: {
      lockstep: samples(2000, 2000),
      nbdkit: samples(1000, 1000),
      'qemu-nbd': samples(500, 500),
    },
  },
]

t.test('each job has a ratio to each peer and to the best of them', async (t) => {
  const text = reportPeers(results)
  const rows = text.split('\n').map((line) => line.replace(/\s+/g, ' '))
  t.ok(rows.includes('| unix-4k-randread-32 | 150.0k/s | 2.00 | 0.50 | 0.50 | short |'), text)
  t.ok(rows.includes('| unix-1m-read-4 | 2000 MiB/s | 2.00 | 4.00 | 2.00 | |'))
  t.ok(rows.includes('| lockstep ÷ nbdkit | 2.00 |'))
  t.ok(rows.includes('| lockstep ÷ qemu-nbd | 1.41 |'))
})

t.test('without Lockstep the first server takes its place', async (t) => {
  const peers = results.map(({ job, samples }) => ({
    job,
    samples: { nbdkit: samples.nbdkit ?? [], 'qemu-nbd': samples['qemu-nbd'] ?? [] },
  }))
  t.match(reportPeers(peers), /nbdkit ÷ qemu-nbd/)
  t.equal(reportPeers([]), 'nothing was measured\n')
})
