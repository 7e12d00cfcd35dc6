// A name in a message: whole where it could be one, else cut, with its length and what is allowed.
import t from 'tap'
import { shownName } from '../../src/core/shown-name.js'

t.test('a name is shown whole up to its limit, and cut with its length above', (t) => {
  t.equal(shownName('a b', 127), '"a b"')
  t.equal(shownName('x'.repeat(127), 127), `"${'x'.repeat(127)}"`)
  t.equal(shownName('x'.repeat(128), 127), `"${'x'.repeat(40)}…" (128 letters, at most 127)`)
  t.end()
})
