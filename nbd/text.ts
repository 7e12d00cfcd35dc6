// Text that crosses the wire: names are checked, messages are cut. Nothing that a client sent makes an answer grow.
import { ProtocolError } from './bytes/protocol-error.js'

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The UTF-8 bytes of `text`, at most `bytesMax` of them, never half a character. */
export function clipUtf8(text: string, bytesMax: number): Buffer {
  // A character of the string is at least one byte: longer strings need not be encoded whole.
  const bytes = Buffer.from(text.length > bytesMax ? text.slice(0, bytesMax) : text)
  if (bytes.length <= bytesMax) return bytes
  let end = bytesMax
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.subarray(0, end)
}

/** A name for a message: short enough for a line, and without control characters. */
export function quoted(name: string): string {
  if (name.length <= 40) return JSON.stringify(name)
  return `${JSON.stringify(`${name.slice(0, 40)}…`)} (${name.length} letters)`
}

/** A string as proto.md's "Conventions" want it: UTF-8 without NUL. Throws ProtocolError otherwise. */
export function decodeString(bytes: Buffer): string {
  if (bytes.includes(0)) throw new ProtocolError('a string has a NUL in it')
  try {
    return utf8.decode(bytes)
  } catch {
    throw new ProtocolError('a string is not UTF-8')
  }
}
