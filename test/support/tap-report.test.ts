// The reader of test results, against what tap really prints: a failure, a skip or a file cut short is never counted as a pass.
import t from 'tap'
import { TapReader } from './tap-report.js'

function read(text: string): TapReader {
  const reader = new TapReader()
  for (const line of text.split('\n')) reader.line(line)
  return reader
}

const output = `TAP version 14
# Subtest: adds
    # 50000 states
    ok 1 - should be equal
    1..1
ok 1 - adds # time=3.5ms

# Subtest: divides
    ok 1 - by one
    not ok 2 - by zero
      ---
      diff: |
        -1
        +2
      ...
    
    1..2
not ok 2 - divides # time=1ms
  ---
  at:
    lineNumber: 7
  ...

# Subtest: needs a tool
    ok 1 - missing: saw # SKIP missing: saw
    1..1
ok 3 - needs a tool # time=1ms

ok 4 - later # SKIP not today
1..4
# time=20ms`

t.test('tests at the outermost level are counted, with what they said', (t) => {
  const report = read(output).report()
  t.same(report.passed, ['adds'])
  t.same(report.failed, ['divides'])
  t.same(report.skipped, ['needs a tool', 'later'])
  t.same(report.comments, ['50000 states'])
  t.match(report.failures.join('\n'), /by zero[\s\S]*\+2[\s\S]*divides/)
  t.notMatch(report.failures.join('\n'), /by one|SKIP|lineNumber: 7/)
  t.equal(report.isComplete, true)
  const alone = read('not ok 1 - fails\n  ---\n  message: why\n  ...\n1..1').report()
  t.match(alone.failures.join('\n'), /message: why/)
  t.end()
})

t.test('a file that was cut short is not complete', (t) => {
  t.equal(read('TAP version 14\nok 1 - adds # time=3ms\n').report().isComplete, false)
  t.equal(read('TAP version 14\nok 1 - adds\n1..2\n').report().isComplete, false)
  t.equal(read('').report().isComplete, false)
  t.end()
})
