// Option bodies: the lengths inside are believed only as far as there are bytes for them.
import t from 'tap'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'
import { defaultLimits } from '../../nbd/limits.js'
import { contextBody, infoBody, parseContextBody, parseInfoBody } from '../../nbd/option-bodies.js'

t.test('what a client writes is read', async (t) => {
  const info = parseInfoBody(infoBody('vol0@é', [1, 3, 3]), defaultLimits)
  t.equal(info.name, 'vol0@é')
  t.same([...info.infos], [1, 3])
  const queries = ['base:', 'x-lockstep:changed-since:a']
  t.same(parseContextBody(contextBody('v', queries), defaultLimits), { name: 'v', queries })
})

t.test('every body that is cut or has a byte too many is refused', async (t) => {
  const bodies = [
    [infoBody('vol0', [1, 2]), parseInfoBody],
    [contextBody('vol0', ['base:', 'x:y']), parseContextBody],
  ] as const
  for (const [body, parse] of bodies) {
    for (let end = 0; end < body.length; end++) {
      t.throws(() => parse(body.subarray(0, end), defaultLimits), ProtocolError, `${end} bytes`)
    }
    t.throws(() => parse(Buffer.concat([body, Buffer.alloc(1)]), defaultLimits), ProtocolError)
  }
})

t.test('names end at 4096 bytes, and counts and lengths may lie', async (t) => {
  for (const lengthBytes of [256, 257, 4095, 4096]) {
    const { name } = parseInfoBody(infoBody('n'.repeat(lengthBytes)), defaultLimits)
    t.equal(name.length, lengthBytes)
  }
  t.throws(() => parseInfoBody(infoBody('n'.repeat(4097)), defaultLimits), ProtocolError)
  const nothing = Buffer.alloc(0)
  for (const lie of [0xffff_ffff, 0x8000_0000, 0x7fff_ffff, 5]) {
    const count = Buffer.alloc(8)
    count.writeUInt32BE(lie, 4)
    t.throws(() => parseContextBody(count, defaultLimits), ProtocolError)
    const length = Buffer.concat([count.subarray(4), nothing])
    t.throws(() => parseInfoBody(length, defaultLimits), ProtocolError)
  }
})
