// What a mistyped word probably means.
import t from 'tap'
import { nearest } from '../../src/app/nearest.js'

t.test('a small slip finds its word, anything else finds none', (t) => {
  const known = ['listen', 'log-level', 'insecure', 'threads', 'LOCKSTEP_LISTEN']
  t.equal(nearest('lisen', known), 'listen')
  t.equal(nearest('listne', known), 'listen', 'swapped letters')
  t.equal(nearest('loglevel', known), 'log-level')
  t.equal(nearest('thread', known), 'threads')
  t.equal(nearest('LOCKSTEP_LISTN', known), 'LOCKSTEP_LISTEN')
  t.equal(nearest('colour', known), undefined)
  t.equal(nearest('', known), undefined)
  t.equal(nearest('x'.repeat(100_000), known), undefined, 'at once')
  t.end()
})
