// What is wrong on a disk and nobody knows of: a bit in a node's data file.
import { readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import type { LockstepServer } from './server.js'

const blockBytes = 4096
const atByte = 100

/** Flips one bit of the block at `offset` of the image, wherever it is in the node's data file. Call the answer to have it as it was. */
export async function flipBit(
  server: LockstepServer,
  image: Buffer,
  offset: number,
): Promise<() => Promise<void>> {
  const path = join(server.dataDirectory, 'data')
  const block = image.subarray(offset, offset + blockBytes)
  const places = placesOf(readFileSync(path), block)
  if (places.length === 0) throw new Error('the block is in the data file')
  const right = block[atByte] ?? 0
  const write = async (value: number): Promise<void> => {
    await using file = await open(path, 'r+')
    for (const place of places) await file.write(Buffer.from([value]), 0, 1, place + atByte)
  }
  await write(right ^ 4)
  return () => write(right)
}

function placesOf(file: Buffer, block: Buffer): readonly number[] {
  const places: number[] = []
  for (let at = file.indexOf(block); at >= 0; at = file.indexOf(block, at + block.length))
    places.push(at)
  return places
}
