// Lines out of pieces: the same lines for any cutting, and never more held than the limit.
import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { LineReader } from '../../src/control/line-reader.js'

function linesOf(chunks: readonly Uint8Array[], lineBytesMax: number): string[] {
  const reader = new LineReader(lineBytesMax)
  const lines: string[] = []
  for (const chunk of chunks) {
    for (const line of reader.push(chunk)) {
      lines.push(line === 'too-long' ? line : Buffer.from(line).toString('latin1'))
      if (line === 'too-long') return lines
    }
    assert.ok(reader.heldBytes <= lineBytesMax)
  }
  return lines
}

t.test('the lines do not depend on how the bytes arrive', (t) => {
  const cuts = fc.array(fc.nat({ max: 200 }), { maxLength: 20 })
  const parts = fc.array(fc.constantFrom('a', 'bc', '\n', '{"x":1}', '\n\n'), { maxLength: 40 })
  fc.assert(
    fc.property(parts, cuts, (texts, positions) => {
      const bytes = Buffer.from(texts.join(''))
      const edges = [0, ...positions.map((at) => Math.min(at, bytes.length)), bytes.length]
      edges.sort((a, b) => a - b)
      const pieces = edges.map((end, index) => bytes.subarray(edges[index - 1] ?? 0, end))
      const expected = bytes.toString().split('\n').slice(0, -1)
      assert.deepEqual(linesOf(pieces, 1000), expected)
    }),
    { seed: 7, numRuns: 300 },
  )
  t.end()
})

t.test('a line of the limit passes, one byte more does not', (t) => {
  t.same(linesOf([Buffer.from('12345678\n')], 8), ['12345678'])
  t.same(linesOf([Buffer.from('123456789\n')], 8), ['too-long'])
  t.same(linesOf([Buffer.from('123456789')], 8), ['too-long'], 'before its end is seen')
  t.end()
})

t.test('a line that arrives a byte at a time is joined', (t) => {
  const text = 'x'.repeat(5000)
  const bytes = [...Buffer.from(`${text}\n`)].map((byte) => Uint8Array.of(byte))
  t.same(linesOf(bytes, 5000), [text])
  t.end()
})
