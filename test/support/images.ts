// Disk images for real clients: made from a seed or by mkfs, and compared by their checksums.
import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { output } from './process.js'
import { SeededRandom } from './random.js'

const KiB = 1024
const MiB = 1024 * KiB

/** A file of `sizeBytes` with runs of data, runs of zeroes and holes in between, all from the seed. */
export async function makeImage(
  path: string,
  options: { readonly sizeBytes: number; readonly seed: number },
): Promise<void> {
  const random = new SeededRandom(options.seed)
  await using file = await open(path, 'w')
  await file.truncate(options.sizeBytes)
  const pattern = random.bytes(1 * MiB)
  let offset = 0
  while (offset < options.sizeBytes) {
    const lengthBytes = Math.min((1 + random.below(200)) * 4 * KiB, options.sizeBytes - offset)
    const kind = random.pick(['data', 'data', 'zeroes', 'hole'])
    const start = random.below(pattern.length - lengthBytes)
    if (kind === 'data')
      await file.write(pattern.subarray(start, start + lengthBytes), 0, lengthBytes, offset)
    if (kind === 'zeroes') await file.write(Buffer.alloc(lengthBytes), 0, lengthBytes, offset)
    offset += lengthBytes
  }
}

/** A real ext4 file system with this checkout's sources in it, made without root. */
export async function makeFileSystemImage(
  path: string,
  options: { readonly sizeBytes: number; readonly sourceDirectory: string },
): Promise<void> {
  await using file = await open(path, 'w')
  await file.truncate(options.sizeBytes)
  await output('mkfs.ext4', ['-q', '-F', '-d', options.sourceDirectory, path])
}

export async function checksum(path: string): Promise<string> {
  const hash = createHash('sha256')
  await using file = await open(path)
  for await (const part of file.createReadStream()) hash.update(part as Buffer)
  return hash.digest('hex')
}

/** The checksum of a whole export, read by nbdcopy. */
export async function exportChecksum(uri: string): Promise<string> {
  const pipeline = 'set -o pipefail; nbdcopy -- "$1" - | sha256sum'
  const text = await output('bash', ['-c', pipeline, 'checksum', uri], { timeoutMs: 120_000 })
  return text.slice(0, 64)
}
