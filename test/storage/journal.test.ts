// The journal by itself: what is appended is replayed, what is torn ends it, what is missing stops the node.
import { crc32 } from 'node:zlib'
import t, { type Test } from 'tap'
import type { DiskFile } from '../../src/core/disk.js'
import { readFully, writeFully } from '../../src/storage/disk-io.js'
import { Journal, journalNames } from '../../src/storage/journal.js'
import { failureOf } from '../support/failure.js'
import { SmallDisk } from '../support/small-node.js'

const blockBytes = 4096
const headBytes = 44
const salt = Buffer.from('0123456789abcdef', 'hex')

type Batch = { readonly text: string; readonly sequence: number }

/** Two journal files on a simulated disk, and what can be done to them. */
class Files extends SmallDisk {
  files: readonly DiskFile[] = []
  salt = salt

  static async make(blockCount = 8): Promise<Files> {
    const made = new Files()
    await made.preallocate(blockCount)
    return made
  }

  async preallocate(blockCount: number): Promise<void> {
    for (const name of journalNames) {
      const file = await this.disk.open(name, { create: true })
      await Journal.preallocate(file, blockCount * blockBytes)
      await file.close()
    }
    await this.disk.syncDirectory()
  }

  async open(coveredNumber = 0): Promise<{ journal: Journal; found: Batch[] }> {
    this.files = await Promise.all(journalNames.map((name) => this.disk.open(name)))
    const found: Batch[] = []
    const options = { salt: this.salt, coveredNumber }
    const journal = await Journal.open(this.files, options, (payload, sequence) => {
      found.push({ text: payload.toString(), sequence })
    })
    return { journal, found }
  }

  /** Texts of the batches that a start finds. */
  async texts(coveredNumber = 0): Promise<string> {
    return (await this.open(coveredNumber)).found.map(({ text }) => text).join(' ')
  }

  async bytes(file: number, offset: number, lengthBytes: number): Promise<Buffer> {
    const bytes = Buffer.alloc(lengthBytes)
    await readFully(this.files[file] as DiskFile, bytes, offset)
    return bytes
  }

  async put(file: number, offset: number, bytes: Buffer): Promise<void> {
    await writeFully(this.files[file] as DiskFile, [bytes], offset)
  }

  async flip(file: number, offset: number): Promise<void> {
    const [byte = 0] = await this.bytes(file, offset, 1)
    await this.put(file, offset, Buffer.from([byte ^ 1]))
  }
}

async function append(journal: Journal, ...texts: readonly string[]): Promise<void> {
  for (const text of texts) await journal.append(Buffer.from(text), journal.lastNumber * 10)
}

async function isCorrupt(t: Test, files: Files, message: RegExp, coveredNumber = 0): Promise<void> {
  t.match(await failureOf(files.open(coveredNumber)), { code: 'CORRUPT', message, action: /./ })
}

t.test('a batch has the bytes that ON-DISK.md gives it', async (t) => {
  const files = await Files.make()
  const { journal } = await files.open(0x0102030405)
  await journal.append(Buffer.from('payload!'), 0x1122334455)
  const head =
    '4c534a42' + // LSJB
    '0100' +
    '2c00' +
    '0123456789abcdef' +
    '0604030201000000' +
    '08000000' +
    '5544332211000000' +
    '00000000'
  const checksum = crc32(Buffer.concat([Buffer.from(head, 'hex'), Buffer.from('payload!')]))
  const bytes = await files.bytes(0, 0, blockBytes)
  t.equal(bytes.toString('hex', 0, 40), head)
  t.equal(bytes.readUInt32LE(40), checksum)
  t.equal(bytes.toString('latin1', headBytes, headBytes + 8), 'payload!')
  t.ok(bytes.subarray(headBytes + 8).equals(Buffer.alloc(blockBytes - headBytes - 8)))
})

t.test('the same bytes written by hand are read back', async (t) => {
  const files = await Files.make()
  await files.open()
  const golden =
    '4c534a4201002c000123456789abcdef010000000000000002000000070000000000000000000000058c22016f6b'
  await files.put(0, 0, Buffer.from(golden, 'hex'))
  t.strictSame((await files.open()).found, [{ text: 'ok', sequence: 7 }])
})

t.test('what was appended is replayed in order, with its sequence', async (t) => {
  const files = await Files.make()
  const { journal } = await files.open()
  await append(journal, 'a', 'b'.repeat(5000), 'c')
  const again = await files.open()
  t.strictSame(again.found, [
    { text: 'a', sequence: 0 },
    { text: 'b'.repeat(5000), sequence: 10 },
    { text: 'c', sequence: 20 },
  ])
  t.equal(again.journal.lastNumber, 3)
  await append(again.journal, 'd')
  t.equal(await files.texts(2), 'c d', 'a checkpoint covers the first two')
})

t.test('each batch is written and synced, and rewrites no block', async (t) => {
  const files = await Files.make()
  const { journal } = await files.open()
  const before = files.calls.length
  await append(journal, 'a', 'b'.repeat(blockBytes), 'c')
  const calls = files.calls.slice(before).map((call) => [call.kind, call.offset, call.lengthBytes])
  t.strictSame(calls, [
    ['write', 0, blockBytes],
    ['sync', 0, 0],
    ['write', blockBytes, 2 * blockBytes],
    ['sync', 0, 0],
    ['write', 3 * blockBytes, blockBytes],
    ['sync', 0, 0],
  ])
})

t.test('the other file is used when it is covered, and only then', async (t) => {
  const files = await Files.make(4)
  const { journal } = await files.open()
  await append(journal, 'a', 'b', 'c', 'd', 'e', 'f')
  t.equal(journal.wantsCheckpoint, true)
  t.equal(journal.freeBytes, 2 * blockBytes)
  await append(journal, 'g', 'h')
  t.equal(journal.payloadBytesMax, 0, 'both are full')
  t.equal(journal.freeBytes, 0)
  journal.cover(4)
  t.equal(journal.payloadBytesMax, 4 * blockBytes - headBytes)
  await append(journal, 'i')
  t.equal(await files.texts(4), 'e f g h i')
  t.equal((await files.open(9)).journal.freeBytes, 8 * blockBytes)
})

t.test('a batch that does not fit behind the last one goes to the other file', async (t) => {
  const files = await Files.make(4)
  const { journal } = await files.open()
  await append(journal, 'a', 'b', 'c'.repeat(2 * blockBytes), 'd')
  t.equal(await files.texts(), `a b ${'c'.repeat(2 * blockBytes)} d`)
  t.equal((await files.bytes(1, 0, 4)).toString(), 'LSJB')
})

t.test('a journal goes on through any number of changes of file and starts', async (t) => {
  const files = await Files.make(4)
  let covered = 0
  for (let start = 0; start < 12; start++) {
    const { journal, found } = await files.open(covered)
    t.equal(journal.lastNumber - covered, found.length)
    for (let count = 0; count < 5; count++) {
      if (journal.payloadBytesMax < 10) {
        covered = journal.lastNumber
        journal.cover(covered)
      }
      await append(journal, `${journal.lastNumber + 1}`)
    }
  }
  const { found, journal } = await files.open(covered)
  const expected = Array.from({ length: 60 - covered }, (_, index) => `${covered + index + 1}`)
  t.strictSame(
    found.map(({ text }) => text),
    expected,
  )
  t.equal(journal.lastNumber, 60)
})

t.test('a torn newest batch ends the replay, wherever it is torn', async (t) => {
  const files = await Files.make()
  const { journal } = await files.open()
  await append(journal, 'a', 'b', 'c'.repeat(5000))
  const last = 2 * blockBytes
  const whole = await files.bytes(0, last, 2 * blockBytes)
  for (let kept = 0; kept < 2 ** 10 - 1; kept += 31) {
    const torn = Buffer.from(whole)
    // Any of its 512-byte sectors may be missing.
    for (let sector = 0; sector < 10; sector++)
      if ((kept & (1 << sector)) === 0) torn.fill(0, sector * 512, (sector + 1) * 512)
    await files.put(0, last, torn)
    t.equal(await files.texts(), 'a b', `sectors ${kept.toString(2)}`)
  }
  await append((await files.open()).journal, 'd')
  t.equal(await files.texts(), 'a b d', 'and its place is used again')
})

t.test('a batch that is unreadable behind which there is another one stops the node', async (t) => {
  for (const broken of [0, 1, 2]) {
    const files = await Files.make()
    const { journal } = await files.open()
    await append(journal, 'a', 'b', 'c', 'd')
    for (const at of [0, 9, 16, 24, 30, 42, 44]) {
      await files.flip(0, broken * blockBytes + at)
      await isCorrupt(t, files, /batch . (\(from byte \d+ of "journal-0"\) )?is unreadable/)
      await files.flip(0, broken * blockBytes + at)
    }
    t.equal(await files.texts(), 'a b c d')
  }
})

t.test('a gap is found across files, and what a checkpoint covers is no gap', async (t) => {
  const files = await Files.make(4)
  const { journal } = await files.open()
  await append(journal, 'a', 'b', 'c', 'd', 'e')
  await files.put(0, 2 * blockBytes, Buffer.alloc(2 * blockBytes))
  await isCorrupt(
    t,
    files,
    /batch 3 \(from byte 8192 of "journal-0"\) is unreadable, but a later one \(5, at byte 0 of "journal-1"\)/,
  )
  t.equal(await files.texts(4), 'e')
})

t.test('any flipped bit of a batch is found', async (t) => {
  const files = await Files.make()
  const { journal } = await files.open()
  await append(journal, 'hello')
  for (let at = 0; at < headBytes + 5; at++) {
    await files.flip(0, at)
    t.equal(await files.texts(), '', `byte ${at}`)
    await files.flip(0, at)
  }
  t.equal(await files.texts(), 'hello')
})

t.test('batches of an earlier use of the file are not taken', async (t) => {
  const files = await Files.make(4)
  const { journal } = await files.open()
  await append(journal, 'a', 'b', 'c', 'd', 'e')
  journal.cover(5)
  // File 0 begins again: behind the new batch 9 lie the old ones 2 to 4.
  await append(journal, 'f', 'g', 'h', 'i')
  t.equal(await files.texts(5), 'f g h i')
})

t.test('a journal file of another pool stops the node, and stays as it is', async (t) => {
  for (const index of [0, 1]) {
    const strange = await Files.make(4)
    strange.salt = Buffer.alloc(8)
    await append((await strange.open()).journal, 'a', 'b', 'c', 'd', 'e')
    const files = await Files.make(4)
    const { journal } = await files.open()
    await append(journal, 'f', 'g')
    await files.put(index, 0, await strange.bytes(index, 0, 4 * blockBytes))
    const writes = files.callsOf('write').length
    await isCorrupt(t, files, new RegExp(`"journal-${index}" is the journal of another node`))
    t.equal(files.callsOf('write').length, writes)
  }
})

t.test('a torn batch of another pool, or one behind the first block, is none', async (t) => {
  const strange = await Files.make()
  strange.salt = Buffer.alloc(8)
  await append((await strange.open()).journal, 'a')
  const block = await strange.bytes(0, 0, blockBytes)
  const files = await Files.make()
  const { journal } = await files.open()
  await append(journal, 'f')
  await files.put(0, blockBytes, block)
  t.equal(await files.texts(), 'f')
  await files.put(1, 0, block)
  await files.flip(1, headBytes)
  t.equal(await files.texts(), 'f')
})

t.test('another version is named, and nothing is written', async (t) => {
  const files = await Files.make()
  const { journal } = await files.open()
  await append(journal, 'a')
  const head = await files.bytes(0, 0, headBytes + 1)
  head.writeUInt16LE(2, 4)
  head.writeUInt32LE(crc32(head.subarray(headBytes), crc32(head.subarray(0, 40))), 40)
  await files.put(0, 0, head)
  const writes = files.callsOf('write').length
  const error = await failureOf(files.open())
  t.match(error, { code: 'WRONG_VERSION', message: /version 2.* version 1/, action: /./ })
  t.equal(files.callsOf('write').length, writes)
})

t.test('a length that leaves the file is no batch', async (t) => {
  const files = await Files.make()
  const { journal } = await files.open()
  await append(journal, 'a')
  const head = await files.bytes(0, 0, headBytes)
  for (const lengthBytes of [8 * blockBytes - headBytes + 1, 2 ** 31, 2 ** 32 - 1]) {
    head.writeUInt32LE(lengthBytes, 24)
    await files.put(0, 0, head)
    t.equal(await files.texts(), '')
  }
})

t.test('the newest batch is made durable before anything is added', async (t) => {
  const files = await Files.make()
  const { journal } = await files.open()
  await append(journal, 'a')
  journal.skipsSync = true
  await append(journal, 'b')
  await files.open()
  const after = new Files({ medium: files.cutPower() })
  t.equal(await after.texts(), 'a b', 'what one start has seen no power cut takes')
})

t.test('a journal file of another length stops the node', async (t) => {
  for (const sizeBytes of [0, 100, blockBytes, 3 * blockBytes + 512, 9 * blockBytes]) {
    const files = await Files.make()
    const { journal } = await files.open()
    await append(journal, 'a', 'b', 'c'.repeat(10_000))
    await files.files[0]?.truncate(sizeBytes)
    await isCorrupt(t, files, /have \d+ and 32768 bytes/)
  }
})
