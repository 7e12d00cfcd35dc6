// Two real daemons: what is written and done on the primary is on the replica, whatever happens to either of them and to the line between; and what
// that costs on the wire.
import { join } from 'node:path'
import t from 'tap'
import { checksum, exportChecksum, makeImage } from '../support/images.js'
import { Load, NodePair } from '../support/node-pair.js'
import { missingTools, output, run, scratch } from '../support/process.js'
import { SeededRandom } from '../support/random.js'
import { waitFor } from '../support/wait.js'

const MiB = 1024 * 1024
const skip = missingTools('nbdcopy')

t.setTimeout(600_000)

t.test(
  'the replica has every byte and every snapshot, and takes no writes',
  { skip },
  async (t) => {
    const pair = await NodePair.start(t, { volumes: { vol0: 32 * MiB } })
    const { primary, replica } = pair
    const image = join(scratch(t), 'image')
    await makeImage(image, { sizeBytes: 32 * MiB, seed: 1 })
    await output('nbdcopy', [image, primary.uri('vol0')])
    await primary.ok('snapshot', 'create', 'vol0@a')
    t.equal(await exportChecksum(replica.uri('vol0')), await checksum(image))
    await makeImage(image, { sizeBytes: 32 * MiB, seed: 2 })
    await output('nbdcopy', [image, primary.uri('vol0')])
    t.same(await pair.differences(), [])
    await primary.ok('snapshot', 'restore', 'vol0@a', '--yes')
    t.equal(await exportChecksum(replica.uri('vol0')), await exportChecksum(primary.uri('vol0@a')))
    await primary.ok('volume', 'resize', 'vol0', '40M')
    await primary.ok('volume', 'rename', 'vol0', 'mail')
    t.same(await pair.differences(), [])

    const refused = await run('nbdcopy', [image, replica.uri('mail')])
    t.not(refused.status, 0, 'a replica is read-only')
    const command = await replica.cli(['volume', 'create', 'x', '1M'])
    t.match(command.stderr, /this node is a secondary/)
    t.equal((await replica.cli(['wait', '--for', 'promotable', '--timeout', '5'])).status, 0)
    t.equal(await replica.stop(), 0, 'a replica stops cleanly while it is connected')
    await waitFor('the primary sees it', async () => (await pair.peer()).link !== 'streaming')
    t.equal(await primary.stop(), 0)
  },
)

t.test('what happens while the replica is away: it costs what it changed', { skip }, async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: 64 * MiB } })
  const { primary, replica } = pair
  const image = join(scratch(t), 'image')
  await makeImage(image, { sizeBytes: 64 * MiB, seed: 3 })
  await output('nbdcopy', [image, primary.uri('vol0')])
  t.equal(await replica.stop(), 0)
  const writtenBytes = 10 * MiB
  await primary.ok('volume', 'create', 'vol1', String(writtenBytes))
  await output('bash', ['-c', 'head -c "$1" /dev/urandom > "$2"', '-', `${writtenBytes}`, image])
  await output('nbdcopy', [image, primary.uri('vol1')])
  for (const name of ['a', 'b', 'c'])
    await primary.ok('snapshot', 'create', `vol1@${name}`, `vol0@${name}`)
  await primary.ok('snapshot', 'restore', 'vol0@a', '--range', '1M:16M', '--yes')
  await primary.ok('snapshot', 'delete', 'vol0@b', '--yes')
  const explained = await primary.cli(['status', '-x'])
  t.equal(explained.status, 6)
  t.match(explained.stdout, /changes do not reach replica/)
  const wireBytes = await pair.wireBytes(async () => {
    await replica.serve()
    await pair.inSync()
  })
  t.same(await pair.differences(), [])
  const limitBytes = writtenBytes * 1.05 + 64 * 1024
  t.comment(`${writtenBytes} bytes written and 7 operations while away: ${wireBytes} bytes of wire`)
  t.ok(wireBytes <= limitBytes, `${wireBytes} of ${limitBytes}`)
  const used = async (server: typeof primary) => (await server.status()).pool.usedBytes
  t.ok(
    (await used(replica)) <= (await used(primary)) * 1.05 + MiB,
    'shared chunks are shared there',
  )
})

t.test('ten snapshots that were taken while it was away cost nothing', { skip }, async (t) => {
  const writtenBytes = 64 * MiB
  const pair = await NodePair.start(t, { volumes: { vol0: writtenBytes } })
  const { primary, replica } = pair
  t.equal(await replica.stop(), 0)
  const image = join(scratch(t), 'image')
  await output('bash', ['-c', 'head -c "$1" /dev/urandom > "$2"', '-', `${writtenBytes}`, image])
  await output('nbdcopy', [image, primary.uri('vol0')])
  for (let index = 0; index < 10; index++) await primary.ok('snapshot', 'create', `vol0@s${index}`)
  const wireBytes = await pair.wireBytes(async () => {
    await replica.serve()
    await pair.inSync()
  })
  t.same(await pair.differences(), [])
  t.comment(`${writtenBytes} bytes and ten snapshots while away: ${wireBytes} bytes of wire`)
  t.ok(wireBytes <= writtenBytes * 1.05, `${wireBytes} bytes`)
  t.ok(wireBytes >= writtenBytes, 'the data itself went over')
  const here = (await primary.status()).pool.usedBytes
  const there = (await replica.status()).pool.usedBytes
  t.ok(Math.abs(there / here - 1) <= 0.05, `${there} bytes of space there, ${here} here`)
})

t.test('a restore of a whole GiB costs the wire less than a KiB', { skip }, async (t) => {
  const sizeBytes = 1024 * MiB
  const pair = await NodePair.start(t, { volumes: { vol0: sizeBytes } })
  const { primary } = pair
  await primary.ok('snapshot', 'create', 'vol0@empty')
  const fill = 'yes lockstep | head -c "$1" | nbdcopy - "$2"'
  await output('bash', ['-c', fill, '-', String(sizeBytes), primary.uri('vol0')], {
    timeoutMs: 240_000,
  })
  const [dirty] = JSON.parse(await primary.ok('dirty', 'vol0', '--json')).stores
  t.equal(dirty.dirtyBytes, 0, 'the replica has it')
  t.equal((await primary.storeStatus('vol0')).allocatedBytes, sizeBytes, 'every block differs')
  await compareLarge(pair, 'vol0')
  const costs: Record<string, number> = {}
  for (const [what, ...words] of [
    ['snapshot', 'snapshot', 'create', 'vol0@full'],
    ['restore', 'snapshot', 'restore', 'vol0@empty', '--yes'],
    ['refresh', 'snapshot', 'refresh', 'vol0@full', '--yes'],
    ['sync', 'sync', 'vol0@empty', 'vol0', '--yes'],
  ] as const) {
    costs[what] = await pair.wireBytes(() => primary.ok(...words))
    t.ok(costs[what] <= 1024, `${what}: ${costs[what]} bytes`)
  }
  t.comment(`bytes of wire for 1 GiB: ${JSON.stringify(costs)}`)
  for (const name of ['vol0', 'vol0@empty', 'vol0@full']) await compareLarge(pair, name)
})

/** Fails with the first byte that differs. The pair's own comparison knows more of what differs, and takes ten times as long for a GiB. */
async function compareLarge({ primary, replica }: NodePair, name: string): Promise<void> {
  // An end of either that comes too soon is a difference, or fails the pipe.
  const compare = 'set -o pipefail; nbdcopy "$1" - | cmp - <(nbdcopy "$2" -)'
  const uris = [primary.uri(name), replica.uri(name)]
  await output('bash', ['-c', compare, '-', ...uris], { timeoutMs: 240_000 })
}

t.test('either node is killed under load, and both end equal', { skip }, async (t) => {
  const pair = await NodePair.start(t, { volumes: { vol0: 16 * MiB } })
  const random = new SeededRandom(4)
  for (let round = 0; round < 6; round++) {
    const load = new Load(pair.primary, 'vol0', 100 + round)
    const victim = round % 2 === 0 ? pair.replica : pair.primary
    const writes = 50 + random.below(300)
    await waitFor('load', () => load.writeCount >= writes)
    await victim.kill9().gone
    if (victim === pair.replica) {
      const goneAt = load.writeCount
      await waitFor('writes go on without the replica', () => load.writeCount > goneAt + 100)
      await pair.primary.ok('snapshot', 'create', `vol0@r${round}`)
    }
    await victim.serve()
    await pair.inSync()
    await load.stop()
    await pair.inSync()
    t.same(await pair.differences(), [], `round ${round}`)
  }
})

t.test('a line that cuts, stalls, throttles and flips bits', { skip }, async (t) => {
  const serveArgs = ['--peer-deadline', '2']
  const pair = await NodePair.start(t, { volumes: { vol0: 16 * MiB }, serveArgs })
  const { proxy } = pair
  const random = new SeededRandom(5)
  for (const fault of ['cut', 'flip', 'stall', 'throttle', 'cut', 'flip', 'cut'] as const) {
    const load = new Load(pair.primary, 'vol0', 200 + random.below(1000))
    const connections = proxy.connectionCount
    const flips = proxy.flippedCount
    if (fault === 'cut') proxy.cutAfterBytes = 1 + random.below(2 * MiB)
    if (fault === 'flip') proxy.flipAfterBytes = random.below(2 * MiB)
    if (fault === 'throttle') proxy.bytesPerSecondMax = 4 * MiB
    if (fault === 'stall') proxy.isStalled = true
    const seen = (): boolean =>
      load.writeCount > 200 && (fault === 'throttle' || proxy.connectionCount > connections)
    if (fault === 'stall')
      await waitFor('the loss is noticed', async () => (await pair.peer()).link !== 'streaming')
    proxy.isStalled = false
    await waitFor(`${fault} has happened`, seen, 60_000)
    proxy.bytesPerSecondMax = 0
    await load.stop()
    await pair.inSync()
    t.same(await pair.differences(), [], fault)
    if (fault === 'flip') t.equal(proxy.flippedCount, flips + 1)
  }
})
