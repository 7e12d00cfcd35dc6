// Text of others on a terminal: a line, short, and without effects.
import t from 'tap'
import { shownText } from '../../src/core/shown-text.js'

t.test('what is harmless stays, in any script', (t) => {
  for (const text of ['before 4.2', 'vor dem Umzug: größer', '更新前 ✓'])
    t.equal(shownText(text), text)
  t.end()
})

t.test('controls, line ends and marks of direction are blanks', (t) => {
  t.equal(shownText('a\u001b[2Jb\r\nc\u0000d\u009be'), 'a [2Jb c d e')
  t.equal(shownText('a\u202eb\u2028c\ud800d'), 'a b c d')
  t.end()
})

t.test('it is as long as a line may be', (t) => {
  t.equal(shownText('x'.repeat(10_000)).length, 201)
  t.end()
})
