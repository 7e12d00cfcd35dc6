// Reads that must wait for the medium, through the kernel's io_uring: no thread stands by for each, and those of one turn of the event
// loop are submitted in one call. A cold 4 KiB read costs a third of what it costs through the thread pool.
//
// The layout is that of linux/io_uring.h: two rings of one shared piece of memory and an array of 64-byte submission entries.
// Invariants: a slot is in use from its submission to its completion, which keeps the target alive; there are fewer slots than places in
// the completion ring, so that none is ever lost. Where the kernel or the container does not allow it, there is no ring.
import assert from 'node:assert/strict'
import { constants as os } from 'node:os'
import { type Foreign, loadForeign } from './native.js'

/** Reads in flight: a deep connection's worth, and half of the requests that the kernel queues for a disk. Beyond it threads are used. */
const slotCount = 128

/** Reads from this on are done by the kernel's workers: the loop would feel the copy, and the readahead that they begin. */
const workerReadBytesMin = 64 * 1024

/** asm-generic/unistd.h: the same on every architecture since io_uring came. */
const syscallSetup = 425
const syscallEnter = 426
/** linux/io_uring.h */
const featuresNeeded =
  0x1 /* SINGLE_MMAP */ | 0x2 /* NODROP */ | 0x8 /* RW_CUR_POS, as old as READ */
const mapEntriesAt = 0x10000000
const opRead = 22
/** IOSQE_ASYNC, in the byte behind the operation: one of the kernel's own workers does all of it. */
const inWorker = 0x1000
const entryWords = 16
const completionWords = 4
/** sys/mman.h: readable and writable, shared, present from the start. */
const mapAccess = 0x3
const mapFlags = 0x8001

/** Words of struct io_uring_params. */
const Params = {
  wordCount: 30,
  entryCount: 0,
  completionCount: 1,
  features: 5,
  submission: { tail: 11, mask: 12, array: 16 },
  completion: { head: 20, tail: 21, mask: 22, entries: 25 },
} as const

let processRing: ReadRing | null | undefined

/** The one ring of this process, opened at the first call; undefined where there can be none. */
export function processReadRing(): ReadRing | undefined {
  if (processRing === undefined) processRing = ReadRing.open() ?? null
  return processRing ?? undefined
}

/** The bytes read, or a negated errno. */
type Done = (result: number) => void
type Poll = { ref(): void; unref(): void }
type Enter = (...values: unknown[]) => number

export class ReadRing {
  readonly #fd: number
  readonly #foreign: Foreign
  readonly #enter: Enter
  readonly #poll: Poll
  readonly #words: Int32Array
  readonly #entries: Uint32Array
  readonly #at: ReturnType<typeof wordsAt>
  readonly #pending: ({ readonly target: Buffer; readonly done: Done } | undefined)[] = []
  readonly #free = Array.from({ length: slotCount }, (_, slot) => slot)
  #unsubmittedCount = 0
  #isSubmitScheduled = false

  private constructor(
    foreign: Foreign,
    ring: { readonly fd: number; readonly params: Uint32Array; readonly enter: Enter },
    memory: { readonly words: Int32Array; readonly entries: Uint32Array },
  ) {
    this.#foreign = foreign
    this.#fd = ring.fd
    this.#enter = ring.enter
    this.#words = memory.words
    this.#entries = memory.entries
    this.#at = wordsAt(ring.params, memory.words)
    // Entry by entry in order, for good: the indirection is not needed.
    for (let index = 0; index < slotCount; index++) this.#words[this.#at.array + index] = index
    this.#poll = foreign.node.poll(ring.fd, { readable: true }, () => this.#complete())
    this.#poll.unref()
  }

  /** A ring, or undefined where there can be none. It stays open for the life of the process, which it does not keep alive while it is idle. */
  static open(foreign = loadForeign()): ReadRing | undefined {
    if (foreign === undefined) return undefined
    try {
      return ReadRing.#tryOpen(foreign)
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error
      return undefined
    }
  }

  static #tryOpen(foreign: Foreign): ReadRing | undefined {
    const libc = foreign.load(null)
    const setup = libc.func('syscall', 'long', ['long', 'uint', 'void *'])
    const enterTypes = ['long', 'uint', 'uint', 'uint', 'uint', 'void *', 'size_t']
    const enter = libc.func('syscall', 'long', enterTypes)
    const mmap = libc.func('mmap', 'int64', ['void *', 'size_t', 'int', 'int', 'int', 'long'])
    const params = new Uint32Array(Params.wordCount)
    const fd = Number(setup(syscallSetup, slotCount, params))
    if (fd < 0) return undefined
    const features = params[Params.features] ?? 0
    // The descriptor of a ring that cannot be used stays open: there is one at most.
    if ((features & featuresNeeded) !== featuresNeeded) return undefined
    const map = (lengthBytes: number, offset: number): ArrayBuffer | undefined => {
      const address = mmap(null, lengthBytes, mapAccess, mapFlags, fd, offset)
      return Number(address) === -1 ? undefined : foreign.view(BigInt(address), lengthBytes)
    }
    const rings = map(ringBytes(params), 0)
    const entries = map(slotCount * entryWords * 4, mapEntriesAt)
    if (rings === undefined || entries === undefined) return undefined
    const memory = { words: new Int32Array(rings), entries: new Uint32Array(entries) }
    return new ReadRing(foreign, { fd, params, enter }, memory)
  }

  /** Reads into `target`, which it keeps until `done`. False when all slots are in use: nothing was begun. */
  read(fd: number, target: Buffer, offset: number, done: Done): boolean {
    assert(target.length > 0)
    assert(Number.isSafeInteger(offset) && offset >= 0)
    const slot = this.#free.pop()
    if (slot === undefined) return false
    if (this.#free.length === slotCount - 1) this.#poll.ref()
    this.#pending[slot] = { target, done }
    const tail = this.#words[this.#at.submissionTail] as number
    const entry = (tail & this.#at.submissionMask) * entryWords
    const address = this.#foreign.address(target)
    const entries = this.#entries
    entries.fill(0, entry, entry + entryWords)
    entries[entry] = target.length < workerReadBytesMin ? opRead : opRead | inWorker
    entries[entry + 1] = fd
    entries[entry + 2] = offset % 2 ** 32
    entries[entry + 3] = Math.floor(offset / 2 ** 32)
    entries[entry + 4] = Number(address & 0xffffffffn)
    entries[entry + 5] = Number(address >> 32n)
    entries[entry + 6] = target.length
    entries[entry + 8] = slot
    // The kernel may look as soon as the tail has moved: everything else is there before.
    Atomics.store(this.#words, this.#at.submissionTail, (tail + 1) | 0)
    this.#unsubmittedCount++
    this.#scheduleSubmit()
    return true
  }

  /** At the end of this turn's synchronous work: all reads that it began go together. */
  #scheduleSubmit(): void {
    if (this.#isSubmitScheduled) return
    this.#isSubmitScheduled = true
    queueMicrotask(() => this.#submit())
  }

  #submit(): void {
    this.#isSubmitScheduled = false
    const result = Number(
      this.#enter(syscallEnter, this.#fd, this.#unsubmittedCount, 0, 0, null, 0),
    )
    if (result >= 0) this.#unsubmittedCount -= result
    else assert(isTemporary(this.#foreign.errno()))
    // What came into memory meanwhile is done already.
    this.#complete()
    if (this.#unsubmittedCount === 0) return
    this.#isSubmitScheduled = true
    setImmediate(() => this.#submit())
  }

  #complete(): void {
    const words = this.#words
    let head = words[this.#at.completionHead] as number
    while (head !== Atomics.load(words, this.#at.completionTail)) {
      const at = this.#at.completions + (head & this.#at.completionMask) * completionWords
      const slot = words[at] as number
      const result = words[at + 2] as number
      head = (head + 1) | 0
      Atomics.store(words, this.#at.completionHead, head)
      const pending = this.#pending[slot]
      assert(pending !== undefined)
      this.#pending[slot] = undefined
      this.#free.push(slot)
      pending.done(result)
    }
    if (this.#free.length === slotCount) this.#poll.unref()
  }
}

function ringBytes(params: Uint32Array): number {
  const word = (index: number): number => params[index] as number
  return Math.max(
    word(Params.submission.array) + word(Params.entryCount) * 4,
    word(Params.completion.entries) + word(Params.completionCount) * completionWords * 4,
  )
}

/** Where things are in the rings, in words. */
function wordsAt(params: Uint32Array, words: Int32Array) {
  const word = (index: number): number => (params[index] as number) / 4
  const { submission, completion } = Params
  return {
    submissionTail: word(submission.tail),
    submissionMask: words[word(submission.mask)] as number,
    array: word(submission.array),
    completionHead: word(completion.head),
    completionTail: word(completion.tail),
    completionMask: words[word(completion.mask)] as number,
    completions: word(completion.entries),
  }
}

const isTemporary = (errno: number): boolean =>
  [os.errno.EAGAIN, os.errno.EBUSY, os.errno.EINTR, os.errno.ENOMEM].includes(errno)
