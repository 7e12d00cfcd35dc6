// What a hostile network does to whole frames of the link on their way: repeats one, swaps two, brings one of an earlier connection, or is cut within one of
// a certain kind. And what frames went by, for the counts.
//
// Invariant: bytes go on as they come, unless something is planned for the frame that begins; then that frame goes on when it is whole.
import { FrameHead, FrameType, headBytes } from '../../../src/replication/frame-head.js'

/** How a connection ends: both ends get an error, both see the end of the stream, or nothing arrives any more and nobody is told. */
export const cutKinds = ['reset', 'end', 'silence'] as const
export type CutKind = (typeof cutKinds)[number]

/** Of a frame: how, and at which share of its length. */
export type Cut = { readonly kind: CutKind; readonly share: number }

export type Mischief = 'repeat' | 'swap' | 'old'

/** Frames of one direction that went over earlier connections. */
export class OldFrames {
  readonly #frames: { readonly connection: number; readonly bytes: Buffer }[] = []

  keep(connection: number, bytes: Buffer): void {
    this.#frames.push({ connection, bytes })
    if (this.#frames.length > 40) this.#frames.shift()
  }

  /** One of an earlier connection, chosen by a number. */
  pick(connection: number, choice: number): Buffer | undefined {
    const older = this.#frames.filter((frame) => frame.connection < connection)
    return older[choice % Math.max(1, older.length)]?.bytes
  }
}

const names = new Map(
  Object.entries(FrameType).map(([name, type]) => [
    type as number,
    name.toLowerCase().replaceAll('_', '-'),
  ]),
)

/** Kinds within which a cut is worth planning, and which way they go. */
export const framesToCut = [
  { kind: 'hello', direction: 0 },
  { kind: 'hello', direction: 1 },
  { kind: 'decision', direction: 0 },
  { kind: 'ready', direction: 1 },
  { kind: 'write', direction: 0 },
  { kind: 'zero', direction: 0 },
  { kind: 'compare', direction: 0 },
  { kind: 'operation', direction: 0 },
  { kind: 'replay', direction: 0 },
  { kind: 'stream-from', direction: 0 },
  { kind: 'answer', direction: 1 },
  { kind: 'compared', direction: 1 },
  { kind: 'digest-request', direction: 0 },
  { kind: 'digest-answer', direction: 1 },
] as const

/** Entries and answers may come again from an old connection: what they say is never another thing. */
const repeatableTypes: ReadonlySet<number> = new Set([
  FrameType.WRITE,
  FrameType.ZERO,
  FrameType.FLUSH,
  FrameType.COMPARE,
  FrameType.OPERATION,
  FrameType.NOTHING,
  FrameType.ANSWER,
])

export type FrameTapOptions = {
  readonly connection: number
  readonly old: OldFrames | undefined
  readonly count: (what: string) => void
  /** Asked of each frame that begins, with its kind, when no cut was planned for it. */
  readonly cutOf?: (kind: string) => Cut | undefined
  /** A frame that is to be cut begins: so many bytes behind the start of the stream. */
  readonly onCut: (kind: string, cut: Cut, atBytes: number) => void
}

export class FrameTap {
  readonly #options: FrameTapOptions
  #parts: Buffer[] = []
  #filledBytes = 0
  #wantedBytes = headBytes
  #type = 0
  #hasHead = false
  #isHeld = false
  #planned: { readonly what: Mischief; readonly choice: number } | undefined
  #swapped: Buffer | undefined
  #again: { readonly bytes: Buffer; framesLeft: number } | undefined
  #plannedCut: { readonly kind: string; readonly cut: Cut } | undefined
  #outBytes = 0

  constructor(options: FrameTapOptions) {
    this.#options = options
  }

  /** Something happens to the next frame that begins. */
  plan(what: Mischief, choice: number): void {
    this.#planned = { what, choice }
  }

  /** The next frame of that kind is cut. */
  planCut(kind: string, cut: Cut): void {
    this.#plannedCut = { kind, cut }
  }

  calm(): void {
    this.#planned = undefined
    this.#plannedCut = undefined
    this.#again = undefined
  }

  /** Bytes that are sent: those that go on now. */
  pass(piece: Buffer): readonly Buffer[] {
    const out: Buffer[] = []
    for (let at = 0; at < piece.length; ) {
      if (this.#filledBytes === 0) this.#begin()
      const part = piece.subarray(at, at + this.#wantedBytes - this.#filledBytes)
      at += part.length
      this.#filledBytes += part.length
      if (this.#isKept) this.#parts.push(part)
      if (!this.#isHeld) out.push(part)
      if (this.#filledBytes === this.#wantedBytes) this.#filled(out)
    }
    for (const part of out) this.#outBytes += part.length
    return out
  }

  /** Heads are kept to be read, operations for the counts, and frames to be held or remembered. */
  get #isKept(): boolean {
    if (!this.#hasHead || this.#isHeld || this.#options.old !== undefined) return true
    return this.#type === FrameType.OPERATION
  }

  #begin(): void {
    this.#isHeld = this.#planned !== undefined || this.#swapped !== undefined
  }

  #filled(out: Buffer[]): void {
    if (!this.#hasHead) {
      this.#hasHead = true
      const { type, payloadBytes } = FrameHead.decode(Buffer.concat(this.#parts))
      this.#type = type
      this.#wantedBytes = headBytes + payloadBytes
      this.#look(out)
      if (payloadBytes > 0) return
    }
    this.#done(out)
    this.#parts = []
    this.#filledBytes = 0
    this.#wantedBytes = headBytes
    this.#hasHead = false
  }

  /** A head is there: `out` has what goes on of this piece up to its end. */
  #look(out: readonly Buffer[]): void {
    const kind = names.get(this.#type) ?? 'unknown'
    this.#options.count(`frame ${kind}`)
    if (this.#isHeld) return
    const cut = this.#cutOf(kind)
    if (cut === undefined) return
    let sentBytes = this.#outBytes
    for (const part of out) sentBytes += part.length
    const begin = sentBytes - headBytes
    this.#options.onCut(kind, cut, begin + 1 + Math.floor(cut.share * (this.#wantedBytes - 1)))
  }

  #cutOf(kind: string): Cut | undefined {
    const planned = this.#plannedCut
    if (planned?.kind !== kind) return this.#options.cutOf?.(kind)
    this.#plannedCut = undefined
    return planned.cut
  }

  #done(out: Buffer[]): void {
    const { old, connection, count } = this.#options
    const bytes = Buffer.concat(this.#parts)
    if (this.#type === FrameType.OPERATION && bytes.includes('"share"')) count('frame of a share')
    if (this.#isHeld) this.#release(bytes, out)
    if (this.#again !== undefined && this.#again.framesLeft-- <= 0) {
      out.push(this.#again.bytes)
      this.#again = undefined
      count('frame repeated later')
    }
    if (old !== undefined && repeatableTypes.has(this.#type)) old.keep(connection, bytes)
  }

  #release(bytes: Buffer, out: Buffer[]): void {
    const { count, old, connection } = this.#options
    const swapped = this.#swapped
    if (swapped !== undefined) {
      this.#swapped = undefined
      out.push(bytes, swapped)
      count('frames swapped')
      return
    }
    const planned = this.#planned
    this.#planned = undefined
    if (planned?.what === 'swap') {
      this.#swapped = bytes
      return
    }
    if (planned?.what === 'old') {
      const found = old?.pick(connection, planned.choice)
      if (found !== undefined) {
        out.push(found)
        count('frame of an old connection')
      }
    }
    out.push(bytes)
    if (planned?.what === 'repeat') this.#again = { bytes, framesLeft: planned.choice % 4 }
  }
}
