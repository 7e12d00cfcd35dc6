// JSON that came from outside, read field by field: what is missing, of another type, too long or unknown ends the connection with an
// error that names the place. A reader that reached `end` has seen every field of its object.
import { isUtf8 } from 'node:buffer'
import { ProtocolError } from '../../nbd/bytes/protocol-error.js'

export type JsonObject = { readonly [key: string]: unknown }

/** The object that `bytes` hold. Throws ProtocolError when they are anything else. */
export function parseJsonObject(bytes: Buffer, what: string): JsonObject {
  if (!isUtf8(bytes)) throw new ProtocolError(`${what} is not UTF-8`)
  let value: unknown
  try {
    value = JSON.parse(bytes.toString('utf8'))
  } catch {
    throw new ProtocolError(`${what} is not JSON`)
  }
  if (!isObject(value)) throw new ProtocolError(`${what} is not an object`)
  return value
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export class JsonReader {
  readonly #object: JsonObject
  readonly #what: string
  readonly #read = new Set<string>()

  /** Throws ProtocolError unless `value` is an object. */
  constructor(value: unknown, what: string) {
    if (!isObject(value)) throw new ProtocolError(`${what} is not an object`)
    this.#object = value
    this.#what = what
  }

  has(key: string): boolean {
    return Object.hasOwn(this.#object, key)
  }

  /** A text of at least one and at most `bytesMax` bytes of UTF-8. */
  text(key: string, bytesMax: number): string {
    const value = this.#take(key)
    if (typeof value !== 'string') throw this.#wrong(key, 'is not a text')
    if (value === '') throw this.#wrong(key, 'is empty')
    if (Buffer.byteLength(value) > bytesMax)
      throw this.#wrong(key, `is longer than ${bytesMax} bytes`)
    return value
  }

  /** As `text`, or empty. */
  textOrNothing(key: string, bytesMax: number): string {
    return this.#object[key] === '' ? (this.#take(key) as string) : this.text(key, bytesMax)
  }

  /** A text of which `pattern` matches all. */
  textLike(key: string, pattern: RegExp): string {
    const value = this.#take(key)
    if (typeof value !== 'string' || !pattern.test(value))
      throw this.#wrong(key, `is not like ${pattern.source}`)
    return value
  }

  oneOf<T extends string>(key: string, choices: readonly T[]): T {
    const value = this.#take(key)
    const choice = choices.find((one) => one === value)
    if (choice === undefined) throw this.#wrong(key, `is none of ${choices.join(', ')}`)
    return choice
  }

  integer(key: string, min: number, max: number): number {
    const value = this.#take(key)
    if (typeof value !== 'number' || !Number.isSafeInteger(value))
      throw this.#wrong(key, 'is not a whole number')
    if (value < min || value > max || Object.is(value, -0))
      throw this.#wrong(key, `is not from ${min} to ${max}`)
    return value
  }

  boolean(key: string): boolean {
    const value = this.#take(key)
    if (typeof value !== 'boolean') throw this.#wrong(key, 'is neither true nor false')
    return value
  }

  array(key: string, countMin: number, countMax: number): readonly unknown[] {
    const value = this.#take(key)
    if (!Array.isArray(value)) throw this.#wrong(key, 'is not a list')
    if (value.length < countMin || value.length > countMax)
      throw this.#wrong(key, `has ${value.length} elements, not ${countMin} to ${countMax}`)
    return value
  }

  object(key: string): JsonReader {
    return new JsonReader(this.#take(key), `${this.#what}.${key}`)
  }

  /** Whatever is there. */
  any(key: string): unknown {
    return this.#take(key)
  }

  /** Throws ProtocolError when there are fields that nobody asked for. */
  end(): void {
    for (const key of Object.keys(this.#object))
      if (!this.#read.has(key)) throw this.#wrong(key.slice(0, 64), 'is unknown')
  }

  #take(key: string): unknown {
    if (!this.has(key)) throw this.#wrong(key, 'is missing')
    this.#read.add(key)
    return this.#object[key]
  }

  #wrong(key: string, how: string): ProtocolError {
    return new ProtocolError(`${this.#what}.${key} ${how}`)
  }
}
