// What is refused before an export sees it: commands, flags, ranges and sizes, by session.
import t from 'tap'
import { Command, CommandFlag } from '../../nbd/constants.js'
import {
  allowedFlags,
  payloadBytesOf,
  Request,
  type RequestRules,
  readRequest,
  refusalOf,
} from '../../nbd/request.js'

const compact: RequestRules = {
  isExtended: false,
  hasStructuredReplies: false,
  hasStatusPayload: false,
  contextCount: 0,
  payloadBytesMax: 1 << 25,
  minimumBlockBytes: 1,
}
const extended = { ...compact, isExtended: true, hasStructuredReplies: true, contextCount: 1 }
const target = { sizeBytes: 2 ** 40, isReadOnly: false }

function errnoOf(values: Partial<Request>, rules = compact, to = target): string | undefined {
  const request = Object.assign(new Request(), values)
  return refusalOf(request, to, rules, allowedFlags(rules))?.errno
}

t.test('flags are allowed where proto.md says so, FUA everywhere', async (t) => {
  const { READ, WRITE, BLOCK_STATUS, WRITE_ZEROES } = Command
  const { FUA, DF, PAYLOAD_LEN, REQ_ONE, NO_HOLE, FAST_ZERO } = CommandFlag
  const filtered = { ...extended, hasStatusPayload: true }
  for (const [rules, type, flags, errno] of [
    [compact, READ, DF, 'EINVAL'],
    [extended, READ, DF, undefined],
    [compact, WRITE, PAYLOAD_LEN, 'EINVAL'],
    [extended, WRITE, PAYLOAD_LEN | FUA, undefined],
    [extended, WRITE, 0, 'EINVAL'],
    [extended, BLOCK_STATUS, REQ_ONE, undefined],
    [extended, BLOCK_STATUS, PAYLOAD_LEN, 'EINVAL'],
    [filtered, BLOCK_STATUS, PAYLOAD_LEN, undefined],
    [extended, READ, PAYLOAD_LEN, 'EINVAL'],
    [compact, WRITE_ZEROES, NO_HOLE | FAST_ZERO | FUA, undefined],
    [compact, READ, NO_HOLE, 'EINVAL'],
    [compact, READ, 1 << 15, 'EINVAL'],
  ] as const) {
    t.equal(errnoOf({ type, flags, lengthBytes: 1 }, rules), errno, `${type} ${flags}`)
  }
  for (const type of Object.values(Command)) {
    if (type === Command.FLUSH || type === Command.DISC || type === Command.BLOCK_STATUS) continue
    t.equal(errnoOf({ type, flags: FUA, lengthBytes: 1 }), undefined)
  }
})

t.test(
  'a range may end at the end and not one byte later, also where numbers are not exact',
  async (t) => {
    const { READ, WRITE, TRIM, WRITE_ZEROES, CACHE } = Command
    const size = target.sizeBytes
    for (const type of [READ, WRITE, TRIM, WRITE_ZEROES, CACHE]) {
      const errno = type === WRITE || type === WRITE_ZEROES ? 'ENOSPC' : 'EINVAL'
      t.equal(errnoOf({ type, offset: size - 8, lengthBytes: 8 }), undefined)
      t.equal(errnoOf({ type, offset: size, lengthBytes: 0 }), undefined)
      for (const offset of [size - 7, size, size + 1, 2 ** 53, 2 ** 63, 2 ** 64]) {
        t.equal(errnoOf({ type, offset, lengthBytes: 8 }), errno, `${type} at ${offset}`)
      }
      if (type === READ || type === WRITE) continue
      t.equal(errnoOf({ type, offset: 1, lengthBytes: 2 ** 64 }, extended), errno)
    }
    const huge = { sizeBytes: Number.MAX_SAFE_INTEGER, isReadOnly: false }
    t.equal(errnoOf({ type: READ, offset: 2 ** 53 - 2, lengthBytes: 1 }, compact, huge), undefined)
    t.equal(errnoOf({ type: READ, offset: 2 ** 53 - 1, lengthBytes: 1 }, compact, huge), 'EINVAL')
  },
)

t.test('read-only comes before size and range', async (t) => {
  const readOnly = { ...target, isReadOnly: true }
  for (const type of [Command.WRITE, Command.TRIM, Command.WRITE_ZEROES]) {
    t.equal(errnoOf({ type, offset: 2 ** 60, lengthBytes: 1 }, compact, readOnly), 'EPERM')
  }
  t.equal(errnoOf({ type: Command.READ, lengthBytes: 1 }, compact, readOnly), undefined)
  t.equal(errnoOf({ type: Command.FLUSH }, compact, readOnly), undefined)
})

t.test('the payload that follows a header does not depend on whether it is refused', async (t) => {
  const of = (values: Partial<Request>, isExtended: boolean): number =>
    payloadBytesOf(Object.assign(new Request(), values), isExtended)
  const { WRITE, READ } = Command
  t.equal(of({ type: WRITE, lengthBytes: 9, flags: 0xffff }, false), 9)
  t.equal(of({ type: READ, lengthBytes: 9, flags: 0xffff }, false), 0)
  t.equal(of({ type: WRITE, lengthBytes: 9 }, true), 0)
  t.equal(of({ type: 77, lengthBytes: 9, flags: CommandFlag.PAYLOAD_LEN }, true), 9)
})

t.test('a header of the other size is no header', async (t) => {
  const bytes = Buffer.alloc(32)
  bytes.writeUInt32BE(0x25609513)
  t.throws(() => readRequest(bytes, 0, new Request(), true), { name: 'ProtocolError' })
  bytes.writeUInt32BE(0x21e41c71)
  t.throws(() => readRequest(bytes, 0, new Request(), false), { name: 'ProtocolError' })
})
