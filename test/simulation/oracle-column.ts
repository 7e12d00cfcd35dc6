// The possible contents of one column: one sector number over all stores, carried through a history of writes and operations.
//
// Operations copy between equal offsets only, so what happens in one column does not depend on any other.
import assert from 'node:assert/strict'
import zlib from 'node:zlib'
import type { Effect, ModelStore } from './model-catalog.js'
import { sectorBytes } from './sim-file.js'
import { describeSector } from './tags.js'

/** A write as a column sees it. Without data it writes zeroes. */
type ColumnWrite = {
  readonly storeId: number
  readonly offset: number
  readonly end: number
  readonly data: Buffer | undefined
}

/** A store and what is in all of it. */
export type StoreContent = { readonly store: ModelStore; readonly bytes: Buffer }

/** A column with more possible contents than this means a workload too wild to judge. */
const columnStatesMax = 20_000

const zeroSector = Buffer.alloc(sectorBytes)

export type ColumnEvent =
  | { readonly kind: 'write'; readonly entry: ColumnWrite; readonly isCertain: boolean }
  | { readonly kind: 'effect'; readonly effect: Effect }

/** The content of one sector number in each store. Zeroes are undefined. */
type ColumnState = Map<number, Buffer>

export function columnStates(
  base: readonly StoreContent[],
  events: readonly ColumnEvent[],
  offset: number,
): readonly ColumnState[] {
  const start: ColumnState = new Map()
  for (const { store, bytes } of base) start.set(store.id, sectorAt(bytes, offset))
  let states: ColumnState[] = [start]
  for (const event of events) {
    if (event.kind === 'effect') {
      for (const state of states) applyEffect(state, event.effect, offset)
      continue
    }
    const { entry, isCertain } = event
    if (entry.end <= offset || entry.offset >= offset + sectorBytes) continue
    if (isCertain) {
      for (const state of states) applyWrite(state, entry, offset)
      continue
    }
    const changed = states.map((state) => {
      const copy = new Map(state)
      applyWrite(copy, entry, offset)
      return copy
    })
    states = distinct([...states, ...changed])
    assert(states.length <= columnStatesMax)
  }
  return states
}

function applyEffect(state: ColumnState, effect: Effect, offset: number): void {
  switch (effect.kind) {
    case 'create':
      state.set(effect.id, zeroSector)
      return
    case 'delete':
      state.delete(effect.id)
      return
    case 'resize':
      if (offset >= effect.sizeBytes) state.set(effect.id, zeroSector)
      return
    case 'copy': {
      const source = state.get(effect.source)
      assert(source)
      const { range } = effect
      const target = state.get(effect.target)
      if (!range) state.set(effect.target, source)
      else if (target && range.offset < offset + sectorBytes && offset < range.end) {
        state.set(effect.target, mixed(target, source, range.offset - offset, range.end - offset))
      }
    }
  }
}

/** A write to a store that is not there (its creation was not performed, or it was deleted) changes nothing. */
function applyWrite(state: ColumnState, entry: ColumnWrite, offset: number): void {
  const target = state.get(entry.storeId)
  if (!target) return
  const start = Math.max(entry.offset, offset)
  const end = Math.min(entry.end, offset + sectorBytes)
  const data = entry.data
    ? entry.data.subarray(start - entry.offset, end - entry.offset)
    : zeroSector.subarray(0, end - start)
  if (data.length === sectorBytes) state.set(entry.storeId, data)
  else {
    const copy = Buffer.from(target)
    data.copy(copy, start - offset)
    state.set(entry.storeId, copy)
  }
}

function mixed(target: Buffer, source: Buffer, start: number, end: number): Buffer {
  if (start <= 0 && end >= sectorBytes) return source
  const copy = Buffer.from(target)
  const from = Math.max(0, start)
  source.copy(copy, from, from, Math.min(sectorBytes, end))
  return copy
}

function distinct(states: readonly ColumnState[]): ColumnState[] {
  const kept = new Map<string, ColumnState[]>()
  for (const state of states) {
    const key = [...state.values()].map(checksumOf).join()
    const others = kept.get(key)
    if (!others) kept.set(key, [state])
    else if (!others.some((other) => isEqualState(other, state))) others.push(state)
  }
  return [...kept.values()].flat()
}

const checksums = new WeakMap<Buffer, number>()

function checksumOf(bytes: Buffer): number {
  let checksum = checksums.get(bytes)
  if (checksum === undefined) {
    checksum = zlib.crc32(bytes)
    checksums.set(bytes, checksum)
  }
  return checksum
}

function isEqualState(a: ColumnState, b: ColumnState): boolean {
  for (const [id, bytes] of a) {
    const other = b.get(id)
    if (other !== bytes && !other?.equals(bytes)) return false
  }
  return a.size === b.size
}

export function isMatch(
  state: ColumnState,
  found: readonly StoreContent[],
  offset: number,
): boolean {
  for (const { store, bytes } of found) {
    if (offset >= bytes.length) continue
    const expected = state.get(store.id)
    assert(expected)
    if (bytes.compare(expected, 0, sectorBytes, offset, offset + sectorBytes) !== 0) return false
  }
  return true
}

export function describeColumn(
  states: readonly ColumnState[],
  found: readonly StoreContent[],
  offset: number,
): string {
  const lines = [`sector ${offset / sectorBytes} (offset ${offset})`]
  for (const { store, bytes } of found) {
    if (offset >= bytes.length) continue
    lines.push(
      `    store ${store.id} ${store.name}: ${describeSector(sectorAt(bytes, offset), offset)}`,
    )
    const legal = states.slice(0, 6).map((state) => {
      const expected = state.get(store.id)
      return expected ? describeSector(expected, offset) : 'absent'
    })
    lines.push(`      legal: ${[...new Set(legal)].join(' | ')}`)
  }
  return lines.join('\n')
}

function sectorAt(bytes: Buffer, offset: number): Buffer {
  if (offset + sectorBytes > bytes.length) return zeroSector
  return bytes.subarray(offset, offset + sectorBytes)
}
