// JSON from outside, field by field: what is there comes out, and every refusal names the place.
import t from 'tap'
import { JsonReader, parseJsonObject } from '../../src/replication/json-reader.js'

t.test('only an object in UTF-8 is taken', async (t) => {
  t.same(parseJsonObject(Buffer.from('{"a":[1]}'), 'it'), { a: [1] })
  const bad = ['', '[]', '"a"', 'null', '7', '{', '{}x', '{"a":undefined}']
  for (const text of bad)
    t.throws(
      () => parseJsonObject(Buffer.from(text), 'it'),
      { name: 'ProtocolError', message: /^it / },
      text,
    )
  t.throws(
    () => parseJsonObject(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), 'it'),
    /it is not UTF-8/,
  )
})

t.test('nesting however deep is an answer, not a crash', async (t) => {
  const deep = Buffer.from(`{"a":${'['.repeat(500_000)}${']'.repeat(500_000)}}`)
  try {
    parseJsonObject(deep, 'it')
    t.pass('read')
  } catch (error) {
    t.match(error, { name: 'ProtocolError' })
  }
})

t.test('fields come out as their type, and the end demands that all were read', async (t) => {
  const json = new JsonReader(
    {
      text: 'a',
      none: '',
      like: 'ff',
      one: 'b',
      integer: 3,
      flag: false,
      list: [1],
      object: { x: 1 },
      any: null,
    },
    'it',
  )
  t.equal(json.text('text', 1), 'a')
  t.equal(json.textOrNothing('none', 1), '')
  t.equal(json.textLike('like', /^f+$/), 'ff')
  t.equal(json.oneOf('one', ['a', 'b']), 'b')
  t.equal(json.integer('integer', 3, 3), 3)
  t.equal(json.boolean('flag'), false)
  t.same(json.array('list', 1, 1), [1])
  t.equal(json.object('object').integer('x', 0, 1), 1)
  t.ok(json.has('any'))
  t.notOk(json.has('toString'))
  t.throws(() => json.end(), /it\.any is unknown/)
  t.equal(json.any('any'), null)
  json.end()
})

t.test('each refusal names what and where', async (t) => {
  const json = new JsonReader({ a: 'xx', b: -1, c: 1.5, d: '€', e: [], f: 0, g: -0 }, 'it')
  const refusals: readonly (readonly [() => unknown, RegExp])[] = [
    [() => json.text('missing', 9), /it\.missing is missing/],
    [() => json.text('toString', 9), /it\.toString is missing/],
    [() => json.text('a', 1), /it\.a is longer than 1 bytes/],
    [() => json.text('d', 2), /it\.d is longer than 2 bytes/],
    [() => json.text('b', 9), /it\.b is not a text/],
    [() => json.integer('b', 0, 9), /it\.b is not from 0 to 9/],
    [() => json.integer('c', 0, 9), /it\.c is not a whole number/],
    [() => json.integer('g', 0, 9), /it\.g is not from 0 to 9/],
    [() => json.array('e', 1, 2), /it\.e has 0 elements/],
    [() => json.array('a', 1, 2), /it\.a is not a list/],
    [() => json.object('e'), /it\.e is not an object/],
    [() => json.boolean('f'), /it\.f is neither true nor false/],
    [() => json.oneOf('a', ['y', 'z']), /it\.a is none of y, z/],
    [() => json.textLike('a', /^y$/), /it\.a is not like/],
    [() => new JsonReader([], 'it'), /it is not an object/],
  ]
  for (const [call, message] of refusals) t.throws(call, { name: 'ProtocolError', message })
})
