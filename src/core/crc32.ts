// CRC-32 (IEEE, as in zlib and Ethernet) of frames and their payload: by Intel's storage library where that is installed, which is eight times as fast as zlib, else by zlib.
//
// Invariant: both give the same number for the same bytes. The library is used only after it has shown that, at load; what is short goes to zlib, because
// a call of the library costs as much as the sum.
import { createRequire } from 'node:module'
import { crc32 as zlibCrc32 } from 'node:zlib'

/** Continues from `seed`, the sum of what came before; 0 at the start. */
export type Crc32 = (bytes: Buffer, seed?: number) => number

/** For `doctor`. */
export type Crc32Support = { readonly isFast: boolean; readonly reason?: string }

/** Where the library's call overtakes zlib. */
const nativeBytesMin = 32

/** Debian's libisal2. */
const libraryName = 'libisal.so.2'

type Foreign = {
  load(path: string): {
    func(
      name: string,
      result: string,
      parameters: readonly string[],
    ): (seed: number, bytes: Buffer, lengthBytes: number) => number
  }
}

/** The library's, or why it cannot be used. */
export function loadFastCrc32(name = libraryName): Crc32 | string {
  try {
    const foreign = createRequire(import.meta.url)('koffi') as Foreign
    const types = ['uint32', 'void *', 'uint64']
    const call = foreign.load(name).func('crc32_gzip_refl', 'uint32', types)
    const fast: Crc32 = (bytes, seed = 0) => call(seed, bytes, bytes.length)
    return agrees(fast) ? fast : `${name} computes another sum than zlib`
  } catch (error) {
    const [cause] = (error instanceof Error ? error.message : String(error)).split('\n', 1)
    return `${name} cannot be used: ${cause}`
  }
}

/** Lengths around the widths that such code works in, at an odd address, begun anew and continued. */
export function agrees(candidate: Crc32): boolean {
  const bytes = Buffer.allocUnsafeSlow(70_001)
  for (let index = 0; index < bytes.length; index++) bytes[index] = (index * 167 + 13) & 0xff
  return [0, 1, 15, 16, 17, 63, 64, 255, 256, 1023, 4096, 65_537, 70_000].every((lengthBytes) => {
    const part = bytes.subarray(1, 1 + lengthBytes)
    return [0, 1, 0xffffffff].every((seed) => candidate(part, seed) === zlibCrc32(part, seed))
  })
}

const loaded = loadFastCrc32()
const fast = typeof loaded === 'string' ? undefined : loaded

export const crc32Support: Crc32Support =
  typeof loaded === 'string' ? { isFast: false, reason: loaded } : { isFast: true }

export const crc32: Crc32 =
  fast === undefined
    ? zlibCrc32
    : (bytes, seed = 0) =>
        bytes.length < nativeBytesMin ? zlibCrc32(bytes, seed) : fast(bytes, seed)
