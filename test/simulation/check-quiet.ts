// What must hold of an engine that has nothing under way: structural laws, contents, and what block status says of them.
import assert from 'node:assert/strict'
import type { Export } from '../../nbd/export.js'
import { LawBroken } from './laws.js'
import type { Catalog } from './model-catalog.js'
import type { Oracle, StoreImage } from './oracle.js'
import type { SimNode } from './sim-node.js'

const baseAllocation = 'base:allocation'
const changedSince = 'x-lockstep:changed-since:'
/** proto.md, "base:allocation": either flag promises zeroes here. */
const holeOrZero = 3

/** Checks everything; the answer is the contents and their catalog. */
export async function checkQuiet(
  node: SimNode,
  oracle: Oracle,
): Promise<{ readonly images: readonly StoreImage[]; readonly catalog: Catalog }> {
  node.engine.checkInvariants()
  const images = await node.readStores()
  const catalog = oracle.judge(images, 'live')
  if (typeof catalog === 'string') throw new LawBroken(`contents are wrong: ${catalog}`)
  for (const image of images) await checkStatus(node, image, images)
  assert.deepEqual(node.disk.violations, [])
  return { images, catalog }
}

async function checkStatus(
  node: SimNode,
  image: StoreImage,
  images: readonly StoreImage[],
): Promise<void> {
  const found = node.engine.exports.find(image.name)
  assert(found)
  const volume = image.name.split('@')[0]
  for (const context of found.metaContexts()) {
    const flags = await flagsOf(node, found, context, image.bytes.length)
    if (context === baseAllocation) checkAllocation(image, flags)
    if (!context.startsWith(changedSince)) continue
    const name = `${volume}@${context.slice(changedSince.length)}`
    const since = images.find((other) => other.name === name)
    if (!since) throw new LawBroken(`${image.name} offers ${context}, and there is no ${name}`)
    checkChanged(image, since, flags)
  }
}

/** The flags of every 512 bytes, asked for in several requests. */
async function flagsOf(
  node: SimNode,
  found: Export,
  context: string,
  sizeBytes: number,
): Promise<Uint32Array> {
  const flags = new Uint32Array(Math.ceil(sizeBytes / 512))
  let offset = 0
  while (offset < sizeBytes) {
    const lengthBytes = sizeBytes - offset
    const extentCountMax = 1 + (offset % 3)
    const extents = await node.finish(
      found.blockStatus({ context, offset, lengthBytes, extentCountMax }),
    )
    const total = extents.reduce((sum, extent) => sum + extent.lengthBytes, 0)
    const isRight = extents.length >= 1 && extents.length <= extentCountMax
    if (!isRight || total < 1 || total > lengthBytes) {
      throw new LawBroken(`${context} of ${found.name}: ${JSON.stringify(extents)} at ${offset}`)
    }
    for (const extent of extents) {
      flags.fill(
        extent.flags,
        Math.floor(offset / 512),
        Math.ceil((offset + extent.lengthBytes) / 512),
      )
      offset += extent.lengthBytes
    }
  }
  return flags
}

function checkAllocation(image: StoreImage, flags: Uint32Array): void {
  flags.forEach((flag, sector) => {
    if ((flag & holeOrZero) === 0) return
    const bytes = image.bytes.subarray(sector * 512, sector * 512 + 512)
    if (bytes.every((byte) => byte === 0)) return
    throw new LawBroken(`${image.name}: a hole at ${sector * 512} is not zeroes`)
  })
}

function checkChanged(image: StoreImage, since: StoreImage, flags: Uint32Array): void {
  flags.forEach((flag, sector) => {
    if ((flag & 1) !== 0) return
    const start = sector * 512
    const bytes = image.bytes.subarray(start, start + 512)
    const before = Buffer.alloc(bytes.length)
    since.bytes.subarray(start, start + bytes.length).copy(before)
    if (bytes.equals(before)) return
    throw new LawBroken(`${image.name} differs from ${since.name} at ${start}: not reported`)
  })
}
