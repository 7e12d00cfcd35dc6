// Every combination of command, flags, length and place that a header can carry, in each style of reply, with contexts and without: each is answered once, as done or as
// refused, and the session goes on. What no good client sends is where nobody has looked.
import t from 'tap'
import { Command, CommandFlag, OptionCode } from '../../nbd/constants.js'
import { inTime, startServer, type TestServer } from '../support/nbd-server.js'

const sizeBytes = 8192
const unknownCommands = [8, 99]
const commands = [...Object.values(Command), ...unknownCommands].filter(
  (command) => command !== Command.DISC,
)
/** All that the specification knows, and one more. */
const flagCount = 2 * Math.max(...Object.values(CommandFlag)) * 2
/** 8 and 12: block status payloads without and with a context. */
const lengths = [0, 1, 8, 12, 512, 4096, sizeBytes + 1]
const offsets = [0, 1, sizeBytes - 512, sizeBytes]
const batchCount = 256

/** Asks for the status of 4 KiB, where it is taken for that. */
function payloadOf(lengthBytes: number): Buffer {
  const payload = Buffer.alloc(lengthBytes)
  if (lengthBytes >= 8) payload.writeBigUInt64BE(4096n)
  return payload
}

async function* answers(
  served: TestServer,
  style: 'simple' | 'structured' | 'extended',
  hasContexts: boolean,
) {
  const client = await served.connect()
  if (style === 'structured') await client.negotiateStructured()
  if (style === 'extended') await client.negotiateExtended()
  const contexts = OptionCode.SET_META_CONTEXT
  if (hasContexts) await client.metaContexts(contexts, 'memory', ['base:allocation'])
  await client.go('memory')
  let batch: Promise<{ readonly error?: Error | undefined }>[] = []
  for (const command of commands) {
    for (let flags = 0; flags < flagCount; flags++) {
      for (const lengthBytes of lengths) {
        for (const offset of offsets) {
          const hasPayload =
            style === 'extended'
              ? (flags & CommandFlag.PAYLOAD_LEN) !== 0
              : command === Command.WRITE
          const payload = hasPayload ? { payload: payloadOf(lengthBytes) } : {}
          batch.push(client.request({ command, flags, offset, lengthBytes, ...payload }))
        }
      }
      if (batch.length < batchCount) continue
      yield inTime(Promise.all(batch), `command ${command}, flags up to ${flags}`)
      batch = []
    }
  }
  yield inTime(Promise.all(batch), 'the rest')
  await client.disconnect()
}

for (const style of ['simple', 'structured', 'extended'] as const) {
  for (const hasContexts of style === 'simple' ? [false] : [false, true]) {
    const title = `${style}, ${hasContexts ? 'with' : 'without'} contexts: every header is answered`
    t.test(title, async (t) => {
      const served = await startServer(t, { sizeBytes })
      let doneCount = 0
      let refusedCount = 0
      for await (const batch of answers(served, style, hasContexts)) {
        for (const { error } of batch) {
          if (error === undefined) doneCount++
          else refusedCount++
        }
      }
      t.equal(
        doneCount + refusedCount,
        commands.length * flagCount * lengths.length * offsets.length,
      )
      t.ok(doneCount > 100)
      t.ok(refusedCount > doneCount)
      await served.ended(1)
      t.equal(served.server.usedBytes, 0)
      t.same(served.fatal, [])
      t.match(served.ends, [{ reason: 'disconnect' }])
      t.comment(`${doneCount} done, ${refusedCount} refused`)
    })
  }
}
