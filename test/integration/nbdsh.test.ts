// The protocol's commands one by one, spoken by libnbd's Python shell: flags, errors, block status, and what each leaves behind.
import t from 'tap'
import { nbdsh as python } from '../support/nbdsh.js'
import { missingTools, scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'

const MiB = 1024 * 1024
const skip = missingTools('nbdsh')
const server = await LockstepServer.start(t, {
  directory: scratch(t),
  volumes: { vol0: 16 * MiB, odd: 1 * MiB + 512, other: 8 * MiB },
})

const withStatus = "h.add_meta_context('base:allocation')"

t.test('a write is read back, whatever its alignment', { skip }, async () => {
  await python(
    server.uri('vol0'),
    `
    for offset, count in [(0, 512), (1, 1), (511, 2), (4095, 4098), (65535, 3), (100001, 200003), (16 * 2**20 - 7, 7)]:
        data = bytes((offset + i * 7) & 255 for i in range(count))
        h.pwrite(data, offset)
        assert h.pread(count, offset) == data, (offset, count)
    h.pwrite(b'x' * 32 * 2**18, 2**20)
    h.pwrite(b'y', 2**20 + 77)
    got = h.pread(32 * 2**18, 2**20)
    assert got[76:79] == b'xyx' and got[0:1] == b'x' and got[-1:] == b'x'`,
  )
})

t.test(
  'FUA, flush, trim, zero and cache succeed, and zeroes read as zeroes',
  { skip },
  async () => {
    await python(
      server.tcpUri('vol0'),
      `
    size = 2**20
    for command in [
        lambda: h.trim(size, size),
        lambda: h.trim(size, size, nbd.CMD_FLAG_FUA),
        lambda: h.zero(size, size),
        lambda: h.zero(size, size, nbd.CMD_FLAG_FUA),
        lambda: h.zero(size, size, nbd.CMD_FLAG_NO_HOLE),
        lambda: h.zero(size, size, nbd.CMD_FLAG_FAST_ZERO),
    ]:
        h.pwrite(b'\\x55' * (size * 3), 0, nbd.CMD_FLAG_FUA)
        command()
        assert h.pread(size, size) == bytes(size)
        assert h.pread(size, 0) == b'\\x55' * size
        assert h.pread(size, 2 * size) == b'\\x55' * size
    h.pwrite(b'\\x77' * 10000, 5000)
    h.zero(3001, 6001)
    h.trim(1, 6000)
    assert h.pread(10000, 5000) == b'\\x77' * 1000 + bytes(3002) + b'\\x77' * 5998
    h.cache(size, 0)
    h.flush()`,
    )
  },
)

t.test('a request outside the export fails, and the connection goes on', { skip }, async () => {
  await python(
    server.uri('vol0'),
    `
    size = h.get_size()
    assert size == 16 * 2**20
    h.pwrite(b'\\x31' * 512, size - 512)
    fails('EINVAL', h.pread, 512, size)
    fails('EINVAL', h.pread, 1024, size - 512)
    fails('EINVAL', h.pread, 512, 2**63 - 1024)
    fails('ENOSPC', h.pwrite, b'z' * 1024, size - 512)
    fails('ENOSPC', h.pwrite, b'z' * 2**20, size)
    fails('ENOSPC', h.zero, 1024, size - 512)
    for call in [h.trim, h.cache]:
        try:
            call(1024, size - 512)
            raise AssertionError('no error')
        except nbd.Error as ex:
            assert ex.errnum in (errno.EINVAL, errno.ENOSPC), str(ex)
    assert h.pread(512, size - 512) == b'\\x31' * 512, 'nothing was half done'`,
    'h.set_strict_mode(0)',
  )
})

t.test('requests that break the rules fail one by one', { skip }, async () => {
  await python(
    server.uri('vol0'),
    `
    fails('EINVAL', h.pread, 512, 0, flags=1 << 14)
    fails('EINVAL', h.pwrite, b'q' * 512, 0, flags=1 << 14)
    fails('EINVAL', h.flush, flags=1 << 14)
    assert h.pread(1, 0) is not None`,
    'h.set_strict_mode(0)',
  )
})

t.test('an export of an odd size is used to its last byte', { skip }, async () => {
  await python(
    server.uri('odd'),
    `
    size = h.get_size()
    assert size == 2**20 + 512
    h.pwrite(b'\\x42' * 700, size - 700)
    assert h.pread(700, size - 700) == b'\\x42' * 700
    h.zero(512, size - 512)
    assert h.pread(700, size - 700) == b'\\x42' * 188 + bytes(512)
    found = extents(0, size)
    assert sum(entry[1] for entry in found) == size, found`,
    withStatus,
  )
})

t.test('block status: holes, data, and one extent when asked for one', { skip }, async () => {
  await python(
    server.uri('other'),
    `
    size = h.get_size()
    assert extents(0, size) == [('base:allocation', size, 3)], extents(0, size)
    h.pwrite(b'1' * 65536, 2 * 65536)
    h.pwrite(b'2' * 65536, 5 * 65536)
    found = extents(0, size)
    assert found == [
        ('base:allocation', 2 * 65536, 3),
        ('base:allocation', 65536, 0),
        ('base:allocation', 2 * 65536, 3),
        ('base:allocation', 65536, 0),
        ('base:allocation', size - 6 * 65536, 3),
    ], found
    one = extents(65536, size - 65536, nbd.CMD_FLAG_REQ_ONE)
    assert one == [('base:allocation', 65536, 3)], one
    inside = extents(2 * 65536 + 10, 20)
    assert inside[0][1] >= 20 and inside[0][2] == 0, inside
    fails('EINVAL', h.block_status, 512, size, lambda *args: 0)`,
    `${withStatus}\nh.set_strict_mode(0)`,
  )
})

t.test(
  'several contexts at once, and a context that does not exist is not given',
  { skip },
  async () => {
    await server.ok('snapshot', 'create', 'other@base')
    await python(
      server.uri('other'),
      `
    assert h.can_meta_context('base:allocation')
    assert h.can_meta_context('x-lockstep:changed-since:base')
    assert not h.can_meta_context('x-lockstep:changed-since:nothing')
    assert not h.can_meta_context('x-unknown:thing')
    h.pwrite(b'3' * 65536, 65536)
    size = h.get_size()
    found = extents(0, size)
    names = set(entry[0] for entry in found)
    assert names == {'base:allocation', 'x-lockstep:changed-since:base'}, names
    changed = [entry[1:] for entry in found if entry[0] != 'base:allocation']
    assert changed[:3] == [(65536, 0), (65536, 1), (size - 2 * 65536, 0)], changed`,
      `${withStatus}
for name in ['x-lockstep:changed-since:base', 'x-lockstep:changed-since:nothing', 'x-unknown:thing']:
    h.add_meta_context(name)`,
    )
    await server.ok('snapshot', 'delete', 'other@base', '--yes')
  },
)

t.test('reads come as data and holes, or as one piece when asked', { skip }, async () => {
  await python(
    server.uri('vol0'),
    `
    h.zero(2**20, 0)
    h.pwrite(b'5' * 65536, 65536)
    pieces = []
    def chunk(data, offset, status, error):
        pieces.append((offset, len(data), status))
    got = h.pread_structured(262144, 0, chunk)
    assert got == bytes(65536) + b'5' * 65536 + bytes(131072)
    assert sum(piece[1] for piece in pieces) == 262144, pieces
    pieces.clear()
    got = h.pread_structured(262144, 0, chunk, nbd.CMD_FLAG_DF)
    assert len(pieces) == 1, pieces
    assert got == bytes(65536) + b'5' * 65536 + bytes(131072)`,
  )
})

t.test('many requests in flight on one connection are all answered', { skip }, async () => {
  await python(
    server.tcpUri('vol0'),
    `
    count, block = 500, 8192
    buffers = [nbd.Buffer.from_bytearray(bytearray([i & 255]) * block) for i in range(count)]
    cookies = [h.aio_pwrite(buffers[i], i * block) for i in range(count)]
    while h.aio_in_flight() > 0:
        h.poll(-1)
    assert all(h.aio_command_completed(cookie) for cookie in cookies)
    h.aio_flush()
    back = [nbd.Buffer(block) for i in range(count)]
    for i in reversed(range(count)):
        h.aio_pread(back[i], i * block)
    while h.aio_in_flight() > 0:
        h.poll(-1)
    assert all(bytes(back[i].to_bytearray()) == bytes([i & 255]) * block for i in range(count))`,
  )
})

t.test('what one connection flushed, another reads', { skip }, async () => {
  await python(
    server.uri('vol0'),
    `
    second = nbd.NBD()
    second.connect_uri('${server.tcpUri('vol0')}')
    assert h.can_multi_conn() and second.can_multi_conn()
    for i in range(50):
        h.pwrite(bytes([i]) * 4096, i * 4096)
        assert second.pread(4096, i * 4096) == bytes([i]) * 4096
    second.flush()
    second.shutdown()
    h.shutdown()`,
  )
})

t.test('an export is opened by its bare name, and by simple replies too', { skip }, async () => {
  await python(
    server.uri('vol0'),
    `
    assert not h.get_structured_replies_negotiated()
    h.pwrite(b'6' * 4096, 0)
    assert h.pread(4096, 0) == b'6' * 4096
    fails('EINVAL', h.pread, 512, h.get_size())`,
    'h.set_request_structured_replies(False)\nh.set_strict_mode(0)\nh.set_handshake_flags(0)',
  )
})

t.test('the empty name is not given while there are several volumes', { skip }, async (t) => {
  await t.rejects(python(server.uri(''), 'h.pread(1, 0)'), /ended with 1/)
})
