// Data that says who wrote it: each aligned 8 bytes of a write hold the writer's number and the place they were written for,
// so any image can be decoded.
const tagBytes = 8

/** The bytes that entry `entry` writes at `offset`. The same place gets the same bytes however the write is cut. */
export function taggedBytes(entry: number, offset: number, lengthBytes: number): Buffer {
  const start = offset - (offset % tagBytes)
  const end = Math.ceil((offset + lengthBytes) / tagBytes) * tagBytes
  const bytes = Buffer.allocUnsafe(end - start)
  for (let at = start; at < end; at += tagBytes) {
    bytes.writeUInt32BE(0xa0000000 + entry, at - start)
    bytes.writeUInt32BE(0xb0000000 + at / tagBytes, at - start + 4)
  }
  return bytes.subarray(offset - start, offset - start + lengthBytes)
}

/** What a sector holds, in words: for messages. */
export function describeSector(sector: Buffer, offset: number): string {
  const runs: string[] = []
  let last = ''
  for (let at = 0; at < sector.length; at += tagBytes) {
    const text = describeTag(sector.subarray(at, at + tagBytes), offset + at)
    if (text === last) continue
    runs.push(`+${at} ${text}`)
    last = text
  }
  return runs.join(', ')
}

function describeTag(bytes: Buffer, offset: number): string {
  if (bytes.every((byte) => byte === 0)) return 'zeroes'
  const entry = bytes.readUInt32BE(0)
  const place = bytes.readUInt32BE(4)
  if (entry >>> 28 !== 0xa || place >>> 28 !== 0xb) return `parts of ${bytes.toString('hex')}`
  const at = (place - 0xb0000000) * tagBytes
  const where =
    at === offset
      ? ''
      : ` meant for ${Math.abs(at - offset)} bytes ${at > offset ? 'later' : 'earlier'}`
  return `entry ${entry - 0xa0000000}${where}`
}
