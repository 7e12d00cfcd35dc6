// The wire structs against bytes captured between libnbd 1.14, qemu-img 7.2 or nbd-client 3.24 on one side and nbdkit 1.32 on the
// other. No client here speaks extended headers: those bytes are worked out by hand from proto.md.
import t from 'tap'
import { RequestError } from '../../nbd/errors.js'
import * as messages from '../../nbd/messages.js'
import { ReplyEncoder, type ReplyStyle } from '../../nbd/replies.js'
import { Request, readRequest } from '../../nbd/request.js'

const from = (hex: string): Buffer => Buffer.from(hex, 'hex')

t.test("the server's greeting is nbdkit's", async (t) => {
  const hex = '4e42444d4147494349484156454f50540003'
  t.equal(messages.ServerGreeting.encode({ handshakeFlags: 3 }).toString('hex'), hex)
  t.same(messages.ServerGreeting.decode(from(hex)), { handshakeFlags: 3 })
})

t.test("client flags and options are libnbd's, qemu's and nbd-client's", async (t) => {
  t.same(messages.ClientGreeting.decode(from('00000003')), { flags: 3 })
  const options = [
    ['49484156454f50540000000800000000', { option: 8, lengthBytes: 0 }],
    ['49484156454f50540000000a0000001b', { option: 10, lengthBytes: 27 }],
    ['49484156454f50540000000700000008', { option: 7, lengthBytes: 8 }],
    ['49484156454f50540000000300000000', { option: 3, lengthBytes: 0 }],
    ['49484156454f50540000000200000000', { option: 2, lengthBytes: 0 }],
  ] as const
  for (const [hex, value] of options) {
    t.same(messages.OptionHeader.decode(from(hex)), value)
    t.equal(messages.OptionHeader.encode(value).toString('hex'), hex)
  }
})

t.test("option replies and information are nbdkit's", async (t) => {
  const ack = { option: 8, type: 1, lengthBytes: 0 }
  t.equal(
    messages.OptionReplyHeader.encode(ack).toString('hex'),
    '0003e889045565a9000000080000000100000000',
  )
  const info = { type: 0, sizeBytes: 1048576, transmissionFlags: 0xded }
  t.equal(messages.InfoExport.encode(info).toString('hex'), '000000000000001000000ded')
})

const requests = [
  ['2560951300000001000000000000000100000000000002000000 0008', 0, 1, 1, 512, 8],
  ['25609513000000030000000000000003000000000000000000000000', 0, 3, 3, 0, 0],
  ['25609513000100040000000000000004000000000000100000000200', 1, 4, 4, 4096, 512],
  ['25609513000200060000000000000005000000000000200000000200', 2, 6, 5, 8192, 512],
  ['25609513000800070000000000000007000000000000000000010000', 8, 7, 7, 0, 65536],
  ['25609513000400000000000000000008000000000000020000000010', 4, 0, 8, 512, 16],
  ['2560951300000002000000000000000a000000000000000000000000', 0, 2, 10, 0, 0],
] as const

t.test(
  "requests are libnbd's, for the struct and for the reader that does not allocate",
  async (t) => {
    for (const [spaced, flags, type, cookie, offset, lengthBytes] of requests) {
      const hex = spaced.replaceAll(' ', '')
      const value = { flags, type, cookie: BigInt(cookie), offset: BigInt(offset), lengthBytes }
      t.same(messages.RequestHeader.decode(from(hex)), value)
      t.equal(messages.RequestHeader.encode(value).toString('hex'), hex)
      const request = new Request()
      readRequest(from(`ff${hex}`), 1, request, false)
      t.match(request, { flags, type, cookieHigh: 0, cookieLow: cookie, offset, lengthBytes })
    }
  },
)

t.test('an extended request has a 64-bit length', async (t) => {
  const hex = '21e41c71000000061122334455667788000000010000000000000003fffffffe'
  const request = new Request()
  readRequest(from(hex), 0, request, true)
  t.match(request, { flags: 0, type: 6, offset: 2 ** 32, lengthBytes: 4 * 2 ** 32 - 2 })
  t.match(request, { cookieHigh: 0x11223344, cookieLow: 0x55667788 })
  t.equal(
    messages.ExtendedRequestHeader.encode({
      flags: 0,
      type: 6,
      cookie: 0x1122334455667788n,
      offset: 2n ** 32n,
      lengthBytes: 4n * 2n ** 32n - 2n,
    }).toString('hex'),
    hex,
  )
})

function requestOf(values: Partial<Request>): Request {
  return Object.assign(new Request(), values)
}

function encoded(style: ReplyStyle, write: (e: ReplyEncoder, target: Buffer) => number): string {
  const target = Buffer.alloc(256)
  return target.toString('hex', 0, write(new ReplyEncoder(style, 64), target))
}

t.test("a simple reply is nbdkit's", async (t) => {
  const request = requestOf({ type: 1, cookieLow: 1 })
  const hex = encoded('simple', (e, target) => e.success(target, 0, request))
  t.equal(hex, '67446698000000000000000000000001')
  t.same(messages.SimpleReply.decode(from(hex)), { error: 0, cookie: 1n })
})

t.test("structured chunks are nbdkit's", async (t) => {
  const read = requestOf({ cookieLow: 2, offset: 512, offsetLow: 512, lengthBytes: 8 })
  const header = '668e33ef00010001000000000000000200000010' + '0000000000000200'
  t.equal(
    encoded('structured', (e, target) => e.wholeDataHeader(target, 0, read)),
    header,
  )
  const data = { offset: 512, lengthBytes: 8, isLast: true }
  t.equal(
    encoded('structured', (e, target) => e.dataHeader(target, 0, read, data)),
    header,
  )
  const status = {
    contextId: 1,
    extents: [{ lengthBytes: 32768, flags: 0 }],
    isLast: true,
  }
  t.equal(
    encoded('structured', (e, target) =>
      e.statusChunk(target, 0, requestOf({ cookieLow: 7 }), status),
    ).slice(0, 56),
    '668e33ef0001000500000000000000070000000c0000000100008000',
  )
  t.equal(
    encoded('structured', (e, target) =>
      e.failure(target, 0, requestOf({ cookieLow: 9 }), new RequestError('EINVAL', '')),
    ),
    '668e33ef00018001000000000000000900000006000000160000',
  )
})

t.test(
  "a structured hole is offset and length, and an error's text follows its length",
  async (t) => {
    const request = requestOf({ cookieLow: 3, offset: 0x1000 })
    const hole = { offset: 0x1000, lengthBytes: 0x8000, isLast: false }
    t.equal(
      encoded('structured', (e, target) => e.holeChunk(target, 0, request, hole)),
      '668e33ef0000000200000000000000030000000c' + '0000000000001000' + '00008000',
    )
    t.equal(
      encoded('structured', (e, target) =>
        e.failure(target, 0, request, new RequestError('EIO', 'no')),
      ),
      '668e33ef0001800100000000000000030000000800000005' + '00026e6f',
    )
  },
)

t.test("extended chunks carry the request's offset and 64-bit numbers", async (t) => {
  const request = requestOf({ cookieLow: 3, offsetHigh: 1, offsetLow: 2, offset: 2 ** 32 + 2 })
  const head = '6e8a278c' + '0001'
  const ids = '0000000000000003' + '0000000100000002'
  t.equal(
    encoded('extended', (e, target) => e.success(target, 0, request)),
    `${head}0000${ids}0000000000000000`,
  )
  const status = {
    contextId: 9,
    extents: [{ lengthBytes: 2 ** 33, flags: 3 }],
    isLast: true,
  }
  t.equal(
    encoded('extended', (e, target) => e.statusChunk(target, 0, request, status)),
    `${head}0006${ids}0000000000000018000000090000000100000002000000000000000000000003`,
  )
  t.equal(
    encoded('extended', (e, target) =>
      e.wholeDataHeader(target, 0, { ...request, lengthBytes: 5 } as Request),
    ),
    `${head}0001${ids}000000000000000d0000000100000002`,
  )
})
