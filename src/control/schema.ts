// Checks of untrusted JSON: each takes a value and the name of its field and returns the value as its type, or throws a FieldError
// that names the field, what was found and what is expected. Nothing passes unnamed: an unknown key is an error, `__proto__` included.
import { controlLimits } from './limits.js'

/** A field of a request that is not what it should be. */
export class FieldError extends Error {
  override readonly name = 'FieldError'
  /** As a path: `operations[2].range.offset`. */
  readonly field: string

  /** `inWords`: what was found, where its value does not tell. */
  constructor(field: string, expected: string, found: unknown, inWords = describeValue(found)) {
    super(`${field === '' ? 'params' : field} must be ${expected}, not ${inWords}`)
    this.field = field
  }
}

export type Check<T> = (value: unknown, field: string) => T
export type Checked<C> = C extends Check<infer T> ? T : never

/** `value` in a few words for an error: never longer than a line, whatever it is. */
export function describeValue(value: unknown): string {
  if (value === undefined) return 'missing'
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  if (typeof value === 'object') return 'an object'
  return quote(value)
}

/** A client's text, cut to a bounded length and with control characters escaped. */
export function quote(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > controlLimits.quotedBytesMax
    ? `${text.slice(0, controlLimits.quotedBytesMax)}…`
    : text
}

export function text(options: { readonly bytesMax: number }): Check<string> {
  return (value, field) => {
    if (typeof value !== 'string') throw new FieldError(field, 'a string', value)
    if (value === '') throw new FieldError(field, 'a string that is not empty', value)
    if (Buffer.byteLength(value) > options.bytesMax) {
      throw new FieldError(field, `at most ${options.bytesMax} bytes long`, value)
    }
    return value
  }
}

export function integer(options: { readonly min: number; readonly max: number }): Check<number> {
  return (value, field) => {
    if (typeof value !== 'number' || !Number.isInteger(value)) {
      throw new FieldError(field, 'a whole number', value)
    }
    if (value < options.min || value > options.max) {
      throw new FieldError(field, `from ${options.min} to ${options.max}`, value)
    }
    return value
  }
}

export const flag: Check<boolean> = (value, field) => {
  if (typeof value !== 'boolean') throw new FieldError(field, 'true or false', value)
  return value
}

export function oneOf<const T extends string>(words: readonly T[]): Check<T> {
  return (value, field) => {
    const word = words.find((candidate) => candidate === value)
    if (word === undefined) throw new FieldError(field, `one of ${words.join(', ')}`, value)
    return word
  }
}

export function listOf<T>(
  check: Check<T>,
  options: { readonly countMax: number },
): Check<readonly T[]> {
  return (value, field) => {
    if (!Array.isArray(value)) throw new FieldError(field, 'an array', value)
    if (value.length === 0)
      throw new FieldError(field, 'an array with something in it', value, 'an empty one')
    if (value.length > options.countMax) {
      const found = `one of ${value.length}`
      throw new FieldError(field, `an array of at most ${options.countMax}: split it`, value, found)
    }
    return value.map((item: unknown, index) => check(item, `${field}[${index}]`))
  }
}

/** A field that may be missing. */
export function optional<T>(check: Check<T>): Check<T | undefined> {
  return (value, field) => (value === undefined ? undefined : check(value, field))
}

type Fields = Readonly<Record<string, Check<unknown>>>
type Present<F extends Fields> = {
  [K in keyof F as undefined extends Checked<F[K]> ? never : K]: Checked<F[K]>
}
type Absent<F extends Fields> = {
  [K in keyof F as undefined extends Checked<F[K]> ? K : never]?: Exclude<Checked<F[K]>, undefined>
}
export type ObjectOf<F extends Fields> = Present<F> & Absent<F>

/** An object with these fields and no others. Fields that are missing are missing in the answer too. */
export function object<F extends Fields>(fields: F): Check<ObjectOf<F>> {
  const names = Object.keys(fields)
  return (value, field) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new FieldError(field, 'an object', value)
    }
    for (const key of Object.keys(value)) {
      if (!names.includes(key)) throw unknownField(field, key, names)
    }
    const found: [string, unknown][] = []
    for (const name of names) {
      const own = Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined
      const checked = fields[name]?.(own, field === '' ? name : `${field}.${name}`)
      if (checked !== undefined) found.push([name, checked])
    }
    return Object.fromEntries(found) as ObjectOf<F>
  }
}

function unknownField(field: string, key: string, names: readonly string[]): FieldError {
  const known = names.length === 0 ? 'there are none' : `its fields are ${names.join(', ')}`
  const error = new FieldError(field, 'without unknown fields', undefined)
  error.message = `${field === '' ? 'params' : field} has the unknown field ${quote(key)}; ${known}`
  return error
}

/** Throws a FieldError when arrays and objects are inside each other more deeply than `nestingMax`. Iterative: the value is hostile. */
export function checkNesting(value: unknown, nestingMax: number): void {
  let level: unknown[] = [value]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > nestingMax)
      throw new FieldError('', `at most ${nestingMax} levels deep`, value, 'deeper')
    const below: unknown[] = []
    for (const item of level) {
      if (typeof item === 'object' && item !== null)
        for (const inner of Object.values(item)) below.push(inner)
    }
    level = below
  }
}
