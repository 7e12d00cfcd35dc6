// A way past a stream of Node's, for whoever has its bytes laid out already.
import type { Duplex } from 'node:stream'

/**
 * Gives the system as much of `parts` as it takes at once, without the stream, which has nothing of its own to send then: the bytes taken.
 * 0 when it takes nothing or the stream cannot be gone around; the stream is written to instead, and shows what is wrong.
 */
export type SendNow = (stream: Duplex, parts: readonly Buffer[]) => number
