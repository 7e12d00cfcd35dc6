// Words as values: sizes, ranges, names, seconds; what is none of them is told with an example.
import t from 'tap'
import {
  readNewSnapshot,
  readRange,
  readRate,
  readSeconds,
  readSize,
  readVolumeSize,
} from '../../../src/app/cli/values.js'

const usage = { name: 'UsageError', code: 'INVALID_ARGUMENT' }
const notSize = { name: 'UsageError', code: 'INVALID_SIZE' }
const notRange = { name: 'UsageError', code: 'OUT_OF_RANGE' }

t.test('sizes', (t) => {
  t.equal(readSize('64K', 'the size'), 65536)
  t.equal(readSize('1.5G', 'the size'), 1610612736)
  for (const text of ['', 'x', '10X', '-1', '1e9', '0x10', '9999999P', ' ']) {
    t.throws(() => readSize(text, 'the size'), notSize, JSON.stringify(text))
  }
  t.end()
})

t.test('what is too large is a size all the same, and told so', (t) => {
  const large = /is too large/
  for (const text of ['8P', '9.5PiB', '9007199254740992', '99999999999999999999', '99999999999G'])
    t.throws(() => readSize(text, 'the size'), { ...notSize, message: large, action: /8P/ }, text)
  for (const text of ['1.5', '1.3K', '1.0001K', '1,5G', '1 G', '+1G', '5E', '9P!'])
    t.throws(() => readSize(text, 'the size'), { ...notSize, message: /is not a size/ }, text)
  t.equal(readSize('9007199254740991', 'the size'), 2 ** 53 - 1)
  t.equal(readSize('7.999P', 'the size'), 7.999 * 2 ** 50)
  t.end()
})

t.test('sizes of volumes', (t) => {
  t.equal(readVolumeSize('0.5K'), 512)
  for (const text of ['0', '100', '1001', '9007199254740991'])
    t.throws(() => readVolumeSize(text), { ...notSize, action: /multiple of 512/ }, text)
  t.end()
})

t.test('ranges', (t) => {
  t.same(readRange(undefined), undefined)
  t.same(readRange('1M:64K'), { offset: 1048576, lengthBytes: 65536 })
  t.same(readRange('0:1'), { offset: 0, lengthBytes: 1 })
  for (const text of ['', '5', '1:', ':1', '1:2:3', 'a:b', '1-5', '9P:1:1', '-:5']) {
    t.throws(() => readRange(text), usage, JSON.stringify(text))
  }
  const beyond = { ...notRange, message: /beyond what any store has/ }
  for (const text of ['9P:1', '0:8P', '99999999999999999999:512', '1:9.5PiB'])
    t.throws(() => readRange(text), beyond, text)
  t.end()
})

t.test('what is below zero is told so', (t) => {
  const below = /is below zero/
  for (const text of ['-1', '-5G', '-0.5K', ' -3', '- 3'])
    t.throws(() => readSize(text, 'the size'), { ...notSize, message: below }, text)
  for (const text of ['-1:5', '0:-512', '-1G:-1K'])
    t.throws(() => readRange(text), { ...notRange, message: below }, text)
  for (const text of ['-1', '-0.5'])
    t.throws(() => readSeconds(text, 'the timeout'), { ...usage, message: below }, text)
  t.end()
})

t.test('rates', (t) => {
  t.equal(readRate('0', 1000), 0)
  t.equal(readRate('1000', 1000), 1000)
  t.throws(() => readRate('1001', 1000), { ...notSize, message: /"1001" is too large/ })
  t.throws(() => readRate('fast', 1000), notSize)
  t.end()
})

t.test('names of new snapshots', (t) => {
  t.same(readNewSnapshot('vol0@a'), { store: 'vol0', name: 'a' })
  t.same(readNewSnapshot('vol0@a@b'), { store: 'vol0@a', name: 'b' })
  const bad = { name: 'UsageError', code: 'INVALID_NAME' }
  for (const text of ['', 'vol0', '@a', 'vol0@']) t.throws(() => readNewSnapshot(text), bad)
  t.end()
})

t.test('seconds', (t) => {
  t.equal(readSeconds('2.5', 'the timeout'), 2.5)
  for (const text of ['', 'x', '-1', '1e3', '99999999'])
    t.throws(() => readSeconds(text, 'x'), usage)
  t.equal(readSeconds('60', 'x', 60), 60)
  t.throws(() => readSeconds('60.001', 'x', 60), { ...usage, action: /at most 60/ })
  t.end()
})
