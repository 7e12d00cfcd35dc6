// A read larger than a turn of the event loop: the same bytes as in one go, a slice in a turn, and others are served in between.
import t from 'tap'
import { layOutRead } from '../../nbd/large-read.js'
import { defaultLimits } from '../../nbd/limits.js'
import { ReplyEncoder } from '../../nbd/replies.js'
import { Request } from '../../nbd/request.js'
import { SlicedRead } from '../../nbd/sliced-read.js'
import { LongTurns } from '../../nbd/turns.js'
import { failureOf } from '../support/failure.js'
import { MemoryExport } from '../support/memory-export.js'
import { inTime, startServer } from '../support/nbd-server.js'

const KiB = 1024
const lengthBytes = 1000 * KiB
const limits = {
  ...defaultLimits,
  readSliceBytes: 64 * KiB,
  readSliceSteps: 10,
  statusStepsMax: 20,
}

class CountingExport extends MemoryExport {
  readonly reads: { readonly lengthBytes: number }[] = []
  onRead: () => void = () => {}

  override read(request: { offset: number; target: Buffer }) {
    this.onRead()
    this.reads.push({ lengthBytes: request.target.length })
    return super.read(request)
  }
}

/** Bytes that differ from place to place, and two holes. */
function target(): CountingExport {
  const made = new CountingExport({ sizeBytes: lengthBytes })
  for (let at = 0; at < lengthBytes; at += 4) made.content.writeUInt32LE(at + 1, at)
  made.content.fill(0, 100 * KiB, 200 * KiB)
  made.content.fill(0, 900 * KiB)
  return made
}

function request(): Request {
  const made = new Request()
  made.lengthBytes = lengthBytes
  return made
}

function sliced(made: CountingExport, style: 'simple' | 'structured' = 'structured') {
  const due: (() => void)[] = []
  const turns = new LongTurns({ ...limits, nextTurn: (callback) => due.push(callback) })
  const encoder = new ReplyEncoder(style, 100)
  const bytes = Buffer.alloc(lengthBytes + KiB)
  const read = new SlicedRead({ target: made, encoder, limits, turns }, request(), bytes)
  const turn = () => due.splice(0).forEach((callback) => void callback())
  return { read, bytes, encoder, turns, turn, isTurnDue: () => due.length > 0 }
}

for (const style of ['simple', 'structured'] as const) {
  t.test(`a ${style} reply is the same as in one go, a few slices in a turn`, async (t) => {
    const made = target()
    const { read, bytes, encoder, turn, isTurnDue } = sliced(made, style)
    const done = read.run({}, () => true)
    t.equal(made.reads.length, 1, 'the first slice is read now')
    let inOneTurnMax = 0
    while (isTurnDue()) {
      const before = made.reads.length
      turn()
      inOneTurnMax = Math.max(inOneTurnMax, made.reads.length - before)
    }
    await done
    t.ok(inOneTurnMax <= 3, `${inOneTurnMax}`)
    t.ok(made.reads.every((call) => call.lengthBytes <= limits.readSliceBytes))
    const whole = Buffer.alloc(bytes.length)
    const end = layOutRead({ target: target(), encoder, limits }, request(), whole, [])
    t.equal(read.end, end)
    t.ok(bytes.equals(whole))
  })
}

t.test('while others have used the turn up, not even the first slice is read', async (t) => {
  const made = target()
  const { read, turns, turn } = sliced(made)
  turns.spend(limits.statusStepsMax)
  const done = read.run({}, () => true)
  t.equal(made.reads.length, 0)
  for (let count = 0; count < 20; count++) turn()
  await done
  t.ok(made.reads.length > 10)
})

t.test('what nobody wants any more is not read', async (t) => {
  const made = target()
  const { read, turn } = sliced(made)
  let isWanted = true
  const done = read.run({}, () => isWanted)
  isWanted = false
  turn()
  await done
  t.equal(made.reads.length, 1)
})

t.test('a failure of a later slice is told when the earlier ones are over', async (t) => {
  const made = target()
  let finish = (): void => {}
  let isOver = false
  made.delay = ({ command, offset }) =>
    command === 'read' && offset === 0
      ? new Promise<void>((resolve) => (finish = resolve)).then(() => {
          isOver = true
        })
      : undefined
  made.fail = ({ command, offset }) => {
    if (command === 'read' && offset > 200 * KiB) throw new Error('a later slice')
  }
  const { read, turn } = sliced(made)
  const failure = failureOf(read.run({}, () => true)).then((error) => ({ error, isOver }))
  for (let count = 0; count < 20; count++) turn()
  await new Promise((resolve) => setImmediate(resolve))
  finish()
  t.match(await failure, { error: { message: 'a later slice' }, isOver: true })
})

t.test('a slice that fails before all are begun ends the read, and nothing else', async (t) => {
  const made = target()
  made.delay = ({ command, offset }) =>
    command === 'read' && offset === 0 ? Promise.reject(new Error('the medium')) : undefined
  const { read, turn } = sliced(made)
  const failure = failureOf(read.run({}, () => true))
  for (let count = 0; count < 20; count++) {
    turn()
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.match(await failure, { message: 'the medium' })
})

t.test('a client is served between the slices of another, and both get their bytes', async (t) => {
  const memory = target()
  const small = { readSliceBytes: 4 * KiB, readSliceSteps: 10, statusStepsMax: 10 }
  const server = await startServer(t, { memory, limits: small })
  const [large, other] = [await server.open('structured'), await server.open()]
  let asked: Promise<Buffer> | undefined
  memory.onRead = () => {
    asked ??= other.read({ offset: 4, lengthBytes: 4 })
  }
  const bytes = await inTime(large.read({ offset: 0, lengthBytes }), 'the large read')
  t.ok(bytes.equals(memory.content))
  t.equal((await asked)?.readUInt32LE(), 5)
  const at = memory.reads.findIndex((call) => call.lengthBytes === 4)
  t.ok(at > 0 && at < memory.reads.length - 1, `${at} of ${memory.reads.length}`)
})

t.test('a client that leaves in the middle of a large read leaves nothing behind', async (t) => {
  const memory = target()
  const server = await startServer(t, { memory, limits: { readSliceBytes: 4 * KiB } })
  const client = await server.open()
  memory.fail = ({ offset }) => {
    if (offset > 300 * KiB) client.destroy()
  }
  await t.rejects(inTime(client.read({ offset: 0, lengthBytes }), 'the end'))
  await server.ended(1)
  t.equal(server.server.usedBytes, 0)
})
