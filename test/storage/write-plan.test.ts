// Writes that lie side by side in the file are one call, and end with a whole sector.
import t from 'tap'
import { addPart, type FileWrite, tailBehind } from '../../src/storage/write-plan.js'

t.test('a write that goes on where the last one ends is joined to it', async (t) => {
  const writes: FileWrite[] = []
  const [a, b, c, d] = ['aa', 'bbb', 'c', 'd'].map((text) => Buffer.from(text)) as [
    Buffer,
    Buffer,
    Buffer,
    Buffer,
  ]
  addPart(writes, 10, [a], 2)
  addPart(writes, 12, [b, c], 4)
  addPart(writes, 17, [d], 1)
  addPart(writes, 10, [d], 1)
  t.strictSame(writes, [
    { offset: 10, parts: [a, b, c], lengthBytes: 6 },
    { offset: 17, parts: [d], lengthBytes: 1 },
    { offset: 10, parts: [d], lengthBytes: 1 },
  ])
})

t.test('the tail of a write is the rest of its last sector', async (t) => {
  t.strictSame(tailBehind(0), { offset: 0, lengthBytes: 0 })
  t.strictSame(tailBehind(1), { offset: 1, lengthBytes: 511 })
  t.strictSame(tailBehind(4607), { offset: 4607, lengthBytes: 1 })
  t.strictSame(tailBehind(4608), { offset: 4608, lengthBytes: 0 })
})
