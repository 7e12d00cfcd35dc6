// Checks of untrusted values: what passes has the type it says, and what does not is named.
import t from 'tap'
import {
  checkNesting,
  FieldError,
  flag,
  integer,
  listOf,
  object,
  oneOf,
  optional,
  text,
} from '../../src/control/schema.js'

const name = text({ bytesMax: 8 })
const person = object({
  name,
  age: optional(integer({ min: 0, max: 150 })),
  tags: optional(listOf(name, { countMax: 2 })),
  kind: optional(oneOf(['a', 'b'])),
  isOld: optional(flag),
})

function fieldOf(value: unknown): string {
  try {
    person(value, '')
    return 'passed'
  } catch (error) {
    if (!(error instanceof FieldError)) throw error
    return error.field
  }
}

t.test('what is right passes, missing fields stay missing', (t) => {
  t.same(person({ name: 'x' }, ''), { name: 'x' })
  t.same(Object.keys(person({ name: 'x', age: 3 }, '')), ['name', 'age'])
  t.end()
})

t.test('the field that is wrong is named', (t) => {
  const cases: readonly (readonly [unknown, string])[] = [
    [{}, 'name'],
    [{ name: 7 }, 'name'],
    [{ name: '' }, 'name'],
    [{ name: 'ninebytes' }, 'name'],
    [{ name: '€€€' }, 'name'],
    [{ name: 'x', age: 1.5 }, 'age'],
    [{ name: 'x', age: '3' }, 'age'],
    [{ name: 'x', age: -1 }, 'age'],
    [{ name: 'x', age: 151 }, 'age'],
    [{ name: 'x', age: null }, 'age'],
    [{ name: 'x', tags: 'y' }, 'tags'],
    [{ name: 'x', tags: [] }, 'tags'],
    [{ name: 'x', tags: ['a', 'b', 'c'] }, 'tags'],
    [{ name: 'x', tags: ['a', {}] }, 'tags[1]'],
    [{ name: 'x', kind: 'c' }, 'kind'],
    [{ name: 'x', isOld: 'true' }, 'isOld'],
    [[], ''],
    [null, ''],
    ['x', ''],
  ]
  for (const [value, field] of cases) t.equal(fieldOf(value), field, JSON.stringify(value))
  t.end()
})

t.test('an unknown field is refused, also one that would reach the prototype', (t) => {
  for (const key of ['nmae', '__proto__', 'constructor', 'toString']) {
    const value: unknown = JSON.parse(`{"name":"x","${key}":{"isAdmin":true}}`)
    t.throws(() => person(value, ''), { message: new RegExp(`unknown field "${key}"`) })
  }
  t.equal(({} as { isAdmin?: boolean }).isAdmin, undefined)
  t.end()
})

t.test('a field that only the prototype has is missing', (t) => {
  const inherited: unknown = Object.create({ name: 'x' })
  t.throws(() => person(inherited, ''), { message: /name must be a string, not missing/ })
  t.end()
})

t.test('an error repeats no more of the value than a line holds', (t) => {
  const error = new FieldError('name', 'short', 'x'.repeat(100_000))
  t.ok(error.message.length < 200, error.message)
  t.end()
})

t.test('nesting is bounded without recursion', (t) => {
  let deep: unknown = 1
  for (let level = 0; level < 200_000; level++) deep = [deep]
  t.throws(() => checkNesting(deep, 16), { name: 'FieldError' })
  t.doesNotThrow(() => checkNesting({ a: [{ b: [1] }] }, 4))
  t.throws(() => checkNesting({ a: [{ b: [1] }] }, 3))
  t.end()
})
