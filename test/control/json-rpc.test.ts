// One line in, a request or a declared error out: for any bytes.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { errorLine, RpcError, readRequest, rpcErrorOf } from '../../src/control/json-rpc.js'
import { LockstepError } from '../../src/core/errors.js'

const bytes = (text: string): Uint8Array => Buffer.from(text)

function codeOf(line: Uint8Array): number | 'request' {
  try {
    readRequest(line)
    return 'request'
  } catch (error) {
    assert.ok(error instanceof RpcError, String(error))
    return error.rpcCode
  }
}

t.test('a request has id, method and parameters; a notification has no id', (t) => {
  const line = bytes('{"jsonrpc":"2.0","id":"x","method":"status","params":{"a":1}}')
  t.same(readRequest(line), { id: 'x', method: 'status', params: { a: 1 } })
  t.notOk('id' in readRequest(bytes('{"jsonrpc":"2.0","method":"status"}')))
  t.equal(readRequest(bytes('{"jsonrpc":"2.0","id":null,"method":"status"}')).id, null)
  t.end()
})

t.test('each kind of bad line has its code', (t) => {
  const cases: readonly (readonly [string | Uint8Array, number])[] = [
    ['{', -32700],
    ['hello', -32700],
    [Uint8Array.of(0x22, 0xff, 0xfe, 0x22), -32700],
    ['7', -32600],
    ['null', -32600],
    ['"status"', -32600],
    ['[]', -32600],
    ['[{"jsonrpc":"2.0","id":1,"method":"status"}]', -32600],
    ['{"id":1,"method":"status"}', -32600],
    ['{"jsonrpc":"1.0","id":1,"method":"status"}', -32600],
    ['{"jsonrpc":"2.0","id":1}', -32600],
    ['{"jsonrpc":"2.0","id":1,"method":7}', -32600],
    ['{"jsonrpc":"2.0","id":{},"method":"status"}', -32600],
    [`{"jsonrpc":"2.0","id":"${'x'.repeat(257)}","method":"status"}`, -32600],
    ['{"jsonrpc":"2.0","id":1,"method":"status","extra":1}', -32600],
    ['{"jsonrpc":"2.0","id":1,"method":"status","__proto__":{"a":1}}', -32600],
    [`{"jsonrpc":"2.0","id":1,"method":"x","params":${'['.repeat(20)}${']'.repeat(20)}}`, -32600],
    ['['.repeat(500_000), -32700],
    ['['.repeat(500_000) + ']'.repeat(500_000), -32600],
    ['{"a":'.repeat(100_000), -32700],
  ]
  for (const [line, code] of cases) {
    const raw = typeof line === 'string' ? bytes(line) : line
    t.equal(codeOf(raw), code, Buffer.from(raw.subarray(0, 60)).toString('latin1'))
  }
  t.end()
})

t.test('an invalid request keeps its id, so that the client knows which it was', (t) => {
  const answered = (line: string) => {
    try {
      return readRequest(bytes(line))
    } catch (error) {
      return error instanceof RpcError ? error.id : error
    }
  }
  t.equal(answered('{"jsonrpc":"2.0","id":9}'), 9)
  t.equal(answered('{"jsonrpc":"2.0","id":[]}'), null)
  t.end()
})

t.test('any bytes give a request or a declared error', (t) => {
  let tried = 0
  const json = fc.json({ maxDepth: 4 }).map((text) => Buffer.from(text))
  const mutated = fc
    .tuple(fc.nat({ max: 60 }), fc.integer({ min: 0, max: 255 }))
    .map(([index, byte]) => {
      const line = Buffer.from(
        '{"jsonrpc":"2.0","id":1,"method":"volume.create","params":{"name":"v"}}',
      )
      line[index] = byte
      return line
    })
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 80 }), json, mutated), (line) => {
      tried++
      codeOf(line)
    }),
    { seed: 11, numRuns: 3000 },
  )
  t.comment(`bad control lines tried: ${tried}`)
  t.end()
})

t.test('a refusal carries its code and its action; an unknown failure is not told', (t) => {
  const refusal = rpcErrorOf(new LockstepError('NO_SPACE', 'the pool is full', 'delete'), '')
  assert.ok(refusal)
  t.same(JSON.parse(errorLine(3, refusal)), {
    jsonrpc: '2.0',
    id: 3,
    error: {
      code: -32000,
      message: 'the pool is full',
      data: { code: 'NO_SPACE', action: 'delete' },
    },
  })
  t.equal(rpcErrorOf(new TypeError('secret'), ''), undefined)
  t.end()
})
