// The bodies of options that have a structure. Every length inside is checked against what is left before it is used; what disagrees is a
// ProtocolError, which the handshake answers with ERR_INVALID.
import { ProtocolError } from './bytes/protocol-error.js'
import type { Limits } from './limits.js'
import { decodeString } from './text.js'

/** Reads a body front to back. */
class BodyReader {
  readonly #body: Buffer
  #at = 0

  constructor(body: Buffer) {
    this.#body = body
  }

  u16(): number {
    return this.#advance(2).readUInt16BE()
  }

  u32(): number {
    return this.#advance(4).readUInt32BE()
  }

  string(lengthBytesMax: number): string {
    const lengthBytes = this.u32()
    if (lengthBytes > lengthBytesMax) {
      throw new ProtocolError(`a string is longer than ${lengthBytesMax} bytes`)
    }
    return decodeString(this.#advance(lengthBytes))
  }

  end(): void {
    if (this.#at !== this.#body.length) throw new ProtocolError('bytes are left at the end')
  }

  #advance(lengthBytes: number): Buffer {
    const end = this.#at + lengthBytes
    if (end > this.#body.length) throw new ProtocolError('a length inside is too long')
    const taken = this.#body.subarray(this.#at, end)
    this.#at = end
    return taken
  }
}

/** INFO and GO. Information that is not known is kept: nobody looks for it. */
export function parseInfoBody(
  body: Buffer,
  limits: Limits,
): { readonly name: string; readonly infos: ReadonlySet<number> } {
  const reader = new BodyReader(body)
  const name = reader.string(limits.nameBytesMax)
  const count = reader.u16()
  const infos = new Set<number>()
  for (let index = 0; index < count; index++) infos.add(reader.u16())
  reader.end()
  return { name, infos }
}

/** LIST_META_CONTEXT and SET_META_CONTEXT. */
export function parseContextBody(
  body: Buffer,
  limits: Limits,
): { readonly name: string; readonly queries: readonly string[] } {
  const reader = new BodyReader(body)
  const name = reader.string(limits.nameBytesMax)
  const count = reader.u32()
  const queries: string[] = []
  // The count is only believed as far as there are bytes for it.
  for (let index = 0; index < count; index++) queries.push(reader.string(limits.nameBytesMax))
  reader.end()
  return { name, queries }
}

/** Body of INFO and GO. */
export function infoBody(name: string, infos: readonly number[] = []): Buffer {
  const nameBytes = Buffer.from(name)
  const body = Buffer.alloc(4 + nameBytes.length + 2 + 2 * infos.length)
  body.writeUInt32BE(nameBytes.length)
  nameBytes.copy(body, 4)
  let at = body.writeUInt16BE(infos.length, 4 + nameBytes.length)
  for (const info of infos) at = body.writeUInt16BE(info, at)
  return body
}

/** Body of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextBody(name: string, queries: readonly string[]): Buffer {
  const strings = [name, ...queries].map((text) => Buffer.from(text))
  const parts = strings.map((text) => {
    const lengthBytes = Buffer.alloc(4)
    lengthBytes.writeUInt32BE(text.length)
    return Buffer.concat([lengthBytes, text])
  })
  const count = Buffer.alloc(4)
  count.writeUInt32BE(queries.length)
  parts.splice(1, 0, count)
  return Buffer.concat(parts)
}
