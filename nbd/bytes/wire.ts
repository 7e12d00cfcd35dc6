// Wire structs, declared once: size, offsets, type, encoder and decoder all follow from one list of fields. Integers are big-endian.
// A decoder reads only inside `lengthBytes` from where it was told to start, and throws ProtocolError for a wrong constant.
import assert from 'node:assert/strict'
import { ProtocolError } from './protocol-error.js'

export interface Field<T> {
  readonly lengthBytes: number
  write(target: Buffer, at: number, value: T): void
  read(source: Buffer, at: number): T
}

/** A field whose value is always the same: written by itself, checked when read, absent from the decoded value. */
export interface Constant {
  readonly lengthBytes: number
  readonly isConstant: true
  write(target: Buffer, at: number): void
  check(source: Buffer, at: number, structName: string): void
}

type Fields = Readonly<Record<string, Field<unknown> | Constant>>

type Values<F extends Fields> = {
  readonly [K in keyof F as F[K] extends Constant ? never : K]: F[K] extends Field<infer T>
    ? T
    : never
}

export interface Struct<F extends Fields> {
  readonly name: string
  readonly lengthBytes: number
  /** Where each field starts, for code that must not allocate. */
  readonly offsetOf: { readonly [K in keyof F]: number }
  encode(values: Values<F>): Buffer
  /** Writes `lengthBytes` bytes from `at` on; returns the end. */
  write(target: Buffer, at: number, values: Values<F>): number
  /** Throws ProtocolError when a constant is not what it must be. The caller has made sure of the length. */
  decode(source: Buffer, at?: number): Values<F>
}

export type Decoded<S> = S extends Struct<infer F> ? Values<F> : never

function isConstant(field: Field<unknown> | Constant): field is Constant {
  return 'isConstant' in field
}

function offsetsOf(fields: Fields): { offsets: Record<string, number>; lengthBytes: number } {
  const offsets: Record<string, number> = {}
  let lengthBytes = 0
  for (const [key, field] of Object.entries(fields)) {
    offsets[key] = lengthBytes
    lengthBytes += field.lengthBytes
  }
  return { offsets, lengthBytes }
}

export function struct<F extends Fields>(name: string, fields: F): Struct<F> {
  const { offsets, lengthBytes } = offsetsOf(fields)
  const entries = Object.entries(fields).map(([key, field]) => ({
    key,
    field,
    at: offsets[key] ?? 0,
  }))
  const write = (target: Buffer, start: number, values: Values<F>): number => {
    assert(start >= 0)
    assert(start + lengthBytes <= target.length)
    for (const { key, field, at } of entries) {
      if (isConstant(field)) field.write(target, start + at)
      else field.write(target, start + at, (values as Record<string, unknown>)[key])
    }
    return start + lengthBytes
  }
  return {
    name,
    lengthBytes,
    offsetOf: offsets as { readonly [K in keyof F]: number },
    write,
    encode(values) {
      const target = Buffer.allocUnsafe(lengthBytes)
      write(target, 0, values)
      return target
    },
    decode(source, start = 0) {
      assert(start >= 0)
      assert(start + lengthBytes <= source.length)
      const values: Record<string, unknown> = {}
      for (const { key, field, at } of entries) {
        if (isConstant(field)) field.check(source, start + at, name)
        else values[key] = field.read(source, start + at)
      }
      return values as Values<F>
    },
  }
}

export const u8: Field<number> = {
  lengthBytes: 1,
  write: (target, at, value) => void target.writeUInt8(value, at),
  read: (source, at) => source.readUInt8(at),
}

export const u16: Field<number> = {
  lengthBytes: 2,
  write: (target, at, value) => void target.writeUInt16BE(value, at),
  read: (source, at) => source.readUInt16BE(at),
}

export const u32: Field<number> = {
  lengthBytes: 4,
  write: (target, at, value) => void target.writeUInt32BE(value, at),
  read: (source, at) => source.readUInt32BE(at),
}

/** 64 bits that are echoed or may have any value. */
export const u64: Field<bigint> = {
  lengthBytes: 8,
  write: (target, at, value) => void target.writeBigUInt64BE(value, at),
  read: (source, at) => source.readBigUInt64BE(at),
}

/** 64 bits on the wire, a number inside. Reading a value above 2^53 - 1 throws ProtocolError. */
export const u53: Field<number> = {
  lengthBytes: 8,
  write(target, at, value) {
    assert(Number.isSafeInteger(value))
    assert(value >= 0)
    writeU64(target, at, value)
  },
  read(source, at) {
    const high = source.readUInt32BE(at)
    if (high > 0x1fffff) throw new ProtocolError('a 64-bit number is above 2^53 - 1')
    return high * 0x1_0000_0000 + source.readUInt32BE(at + 4)
  },
}

/** Writes a safe integer as 64 bits without making a BigInt. */
export function writeU64(target: Buffer, at: number, value: number): void {
  target.writeUInt32BE(Math.floor(value / 0x1_0000_0000), at)
  target.writeUInt32BE(value % 0x1_0000_0000, at + 4)
}

/** A fixed number of raw bytes. What is read is a view, not a copy. */
export function bytes(lengthBytes: number): Field<Buffer> {
  return {
    lengthBytes,
    write(target, at, value) {
      assert.equal(value.length, lengthBytes)
      value.copy(target, at)
    },
    read: (source, at) => source.subarray(at, at + lengthBytes),
  }
}

function constant(expected: Buffer): Constant {
  return {
    lengthBytes: expected.length,
    isConstant: true,
    write: (target, at) => void expected.copy(target, at),
    check(source, at, structName) {
      if (source.compare(expected, 0, expected.length, at, at + expected.length) === 0) return
      const found = source.toString('hex', at, at + expected.length)
      throw new ProtocolError(`${structName} begins with ${found}, not ${expected.toString('hex')}`)
    },
  }
}

export function magic32(value: number): Constant {
  const expected = Buffer.alloc(4)
  expected.writeUInt32BE(value)
  return constant(expected)
}

export function magic64(value: bigint): Constant {
  const expected = Buffer.alloc(8)
  expected.writeBigUInt64BE(value)
  return constant(expected)
}
