// A client that goes on writing while a test does something else: one tagged block after the other, in one order over all its volumes,
// each answered before the next is sent. A set of images of one moment therefore shows where in that order the moment was.
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { nbdsh } from './nbdsh.js'
import { endChild, toolEnvironment, withDeadline } from './process.js'
import type { Owner } from './server.js'

/** Blocks lie 40 KiB apart, so that every chunk has some and none is alike. */
const strideBytes = 40 * 1024
const blockCount = 64
export const liveVolumeBytes = strideBytes * blockCount

const script = `
import nbd, select, struct, sys
volumes = []
for uri in sys.argv[1:]:
    one = nbd.NBD()
    one.connect_uri(uri)
    volumes.append(one)
round = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    round += 1
    for block in range(${blockCount}):
        for one in volumes:
            one.pwrite(struct.pack('>Q', round) * 512, block * ${strideBytes})
    if round % 16 == 0:
        for one in volumes: one.flush()
    print(round, flush=True)
`

export class LiveWriter {
  readonly #child: ChildProcess
  #round = 0
  #waiting: { readonly round: number; readonly resolve: () => void }[] = []
  readonly #ended: Promise<number | null>
  #said = ''

  private constructor(child: ChildProcess) {
    this.#child = child
    assert(child.stdout && child.stderr)
    child.stderr.on('data', (data: Buffer) => {
      this.#said += data.toString()
    })
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.#round = Number(line)
      for (const one of this.#waiting) if (this.#round >= one.round) one.resolve()
      this.#waiting = this.#waiting.filter((one) => this.#round < one.round)
    })
    this.#ended = new Promise((resolve) => child.once('close', (code) => resolve(code)))
  }

  static start(owner: Owner, uris: readonly string[]): LiveWriter {
    const child = spawn('/usr/bin/python3', ['-c', script, ...uris], {
      env: toolEnvironment(),
      stdio: 'pipe',
    })
    owner.teardown(() => endChild(child))
    return new LiveWriter(child)
  }

  /** Resolves when `count` more rounds are written. */
  async rounds(count: number): Promise<void> {
    const more = new Promise<void>((resolve) =>
      this.#waiting.push({ round: this.#round + count, resolve }),
    )
    const early = this.#ended.then((code) => {
      throw new Error(`the writer ended with ${code}: ${this.#said}`)
    })
    early.catch(() => {})
    await withDeadline(Promise.race([more, early]), 60_000, () => `${count} rounds ${this.#said}`)
  }

  /** Waits until its server has gone away, and answers its last complete round. */
  async interrupted(): Promise<number> {
    await withDeadline(this.#ended, 60_000, () => 'the writer notices')
    return this.#round
  }

  /** Ends it after its round and answers that round's number. Rejects when any of its requests failed. */
  async stop(): Promise<number> {
    this.#child.stdin?.end('stop\n')
    const code = await withDeadline(this.#ended, 60_000, () => 'the writer stops')
    assert.equal(code, 0, this.#said)
    return this.#round
  }
}

/** Where in the writer's order these images are: the number of blocks written before them. Rejects when they are of no single moment. */
export async function momentOf(uris: readonly string[]): Promise<number> {
  const images: (readonly number[])[] = []
  for (const uri of uris) {
    const text = await nbdsh(
      uri,
      `
    import struct
    for block in range(${blockCount}):
        data = h.pread(4096, block * ${strideBytes})
        assert data == data[:8] * 512, 'block %d is torn' % block
        print(struct.unpack('>Q', data[:8])[0])`,
    )
    images.push(text.trim().split('\n').map(Number))
  }
  const inOrder = Array.from({ length: blockCount }, (_, block) =>
    images.map((tags) => tags[block] ?? -1),
  ).flat()
  const newest = inOrder[0] ?? 0
  const count = inOrder.filter((tag) => tag === newest).length
  for (const [index, tag] of inOrder.entries())
    assert.equal(
      tag,
      index < count ? newest : newest - 1,
      `not of one moment: ${inOrder.join(' ')}`,
    )
  return (newest - 1) * inOrder.length + count
}
