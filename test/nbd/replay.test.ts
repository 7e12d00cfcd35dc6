// A whole conversation of libnbd with nbdkit, replayed: this server answers the same client with the same bytes.
import t from 'tap'
import { ByteReader } from '../../nbd/bytes/byte-reader.js'
import { MemoryExport } from '../support/memory-export.js'
import { inTime, startServer } from '../support/nbd-server.js'

/** What the client sent (c) and nbdkit answered (s): write, read, flush, trim, zero, cache, structured read with DF. Information about
 *  block sizes, which nbdkit's memory plugin does not give, is not asked for here. */
const conversation = [
  ['s', '4e42444d4147494349484156454f50540003'],
  ['c', '0000000349484156454f50540000000800000000'],
  ['s', '0003e889045565a9000000080000000100000000'],
  ['c', '49484156454f50540000000a0000001b00000000000000010000000f626173653a616c6c6f636174696f6e'],
  [
    's',
    '0003e889045565a90000000a000000040000001300000001626173653a616c6c6f636174696f6e' +
      '0003e889045565a90000000a0000000100000000',
  ],
  ['c', '49484156454f50540000000700000006000000000000'],
  [
    's',
    '0003e889045565a900000007000000030000000c000000000000001000000ded' +
      '0003e889045565a9000000070000000100000000',
  ],
  ['c', '256095130000000100000000000000010000000000000200000000086c6f636b73746570'],
  ['s', '67446698000000000000000000000001'],
  ['c', '25609513000000000000000000000002000000000000020000000008'],
  ['s', '668e33ef0001000100000000000000020000001000000000000002006c6f636b73746570'],
  ['c', '25609513000000030000000000000003000000000000000000000000'],
  ['s', '67446698000000000000000000000003'],
  ['c', '25609513000100040000000000000004000000000000100000000200'],
  ['s', '67446698000000000000000000000004'],
  ['c', '25609513000200060000000000000005000000000000200000000200'],
  ['s', '67446698000000000000000000000005'],
  ['c', '25609513000000050000000000000006000000000000000000000200'],
  ['s', '67446698000000000000000000000006'],
  ['c', '25609513000400000000000000000008000000000000020000000010'],
  ['s', '668e33ef0001000100000000000000080000001800000000000002006c6f636b737465700000000000000000'],
  ['c', '2560951300000002000000000000000a000000000000000000000000'],
] as const

t.test('libnbd gets the bytes that nbdkit sends it', async (t) => {
  const memory = new MemoryExport({ name: '', sizeBytes: 1024 * 1024 })
  const served = await startServer(t, { memory })
  const socket = await served.socket()
  const reader = ByteReader.over(socket, { bufferedBytesMax: 65536 })
  for (const [side, hex] of conversation) {
    if (side === 'c') socket.write(Buffer.from(hex, 'hex'))
    else {
      const found = await inTime(reader.read(hex.length / 2), hex)
      t.equal(found.toString('hex'), hex)
    }
  }
  await t.rejects(inTime(reader.read(1), 'the end'), { name: 'ConnectionEnded' })
  socket.end()
  await served.ended(1)
  t.match(served.ends, [{ reason: 'disconnect' }])
})
