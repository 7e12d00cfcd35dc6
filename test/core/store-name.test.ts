// What a name may be made of, and what nobody may call theirs.
import t from 'tap'
import { limits } from '../../src/core/limits.js'
import { checkKnownPart, checkNamePart, checkUnreserved } from '../../src/core/store-name.js'
import { thrownBy } from '../support/failure.js'

function refusal(call: () => unknown): string {
  const error = thrownBy(call) as { code?: string; message?: string; action?: string }
  return `${error.code}: ${error.message} > ${error.action}`
}

t.test('names of letters, digits and a few signs are names', async (t) => {
  for (const name of ['a', 'vol0', 'A-b_c.d:e+f', '0', 'x'.repeat(127)])
    t.equal(checkNamePart(name), name)
})

t.test('everything else is refused, in a sentence of bounded length', async (t) => {
  const names = ['', '.', '-a', '_a', ':a', '+a', 'a b', 'a/b', 'a@b', 'ä', 'a\n', 'a\0', '\n']
  for (const name of [...names, 'x'.repeat(128), 'x'.repeat(100_000), '../etc', 'a\u202eb']) {
    const said = refusal(() => checkNamePart(name))
    t.match(said, /^INVALID_NAME: /, JSON.stringify(name.slice(0, 20)))
    t.ok(said.length < 400)
  }
})

t.test('the longest full name is what the limit says', async (t) => {
  t.equal('x'.repeat(127).length * 2 + 1, limits.nameBytesMax)
})

t.test('names that a replica gives are refused, with another one', async (t) => {
  for (const name of ['local.', 'local.a', 'before-resync', 'before-resync.monday'])
    t.match(
      thrownBy(() => checkUnreserved(name)),
      { code: 'INVALID_NAME', action: /choose another name/ },
      name,
    )
  for (const name of ['local', 'locals.a', 'before-resync-2', 'a.local.b', 'frozen.1'])
    t.equal(checkUnreserved(name), name)
  t.match(
    thrownBy(() => checkUnreserved('local.monday')),
    { action: /such as monday$/ },
  )
})

t.test('a name that a replica gave is one, however long the part behind its prefix', async (t) => {
  const longest = 'x'.repeat(127)
  for (const name of [
    'a',
    longest,
    `local.${longest}`,
    'before-resync',
    `before-resync.${longest}`,
  ])
    t.equal(checkKnownPart(name), name)
  for (const name of ['', 'local.', 'local.a/b', `x${longest}`, 'before-resync.-'])
    t.match(
      refusal(() => checkKnownPart(name)),
      /^INVALID_NAME: /,
      name,
    )
})
