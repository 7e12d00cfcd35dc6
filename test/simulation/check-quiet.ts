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
  // Once nothing can become durable any more, what it would have freed stays referenced until the restart.
  if (node.engine.status().failure === undefined) node.engine.checkInvariants()
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
    const runs = await runsOf(node, found, context, image.bytes.length)
    if (context === baseAllocation) checkAllocation(image, runs)
    if (!context.startsWith(changedSince)) continue
    const name = `${volume}@${context.slice(changedSince.length)}`
    const since = images.find((other) => other.name === name)
    if (!since) throw new LawBroken(`${image.name} offers ${context}, and there is no ${name}`)
    checkChanged(image, since, runs)
  }
}

type Run = { readonly offset: number; readonly end: number; readonly flags: number }

/** The extents of all of it, asked for in several requests. */
async function runsOf(
  node: SimNode,
  found: Export,
  context: string,
  sizeBytes: number,
): Promise<readonly Run[]> {
  const runs: Run[] = []
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
      runs.push({ offset, end: offset + extent.lengthBytes, flags: extent.flags })
      offset += extent.lengthBytes
    }
  }
  return runs
}

function checkAllocation(image: StoreImage, runs: readonly Run[]): void {
  for (const { offset, end, flags } of runs) {
    if ((flags & holeOrZero) === 0) continue
    const isZero =
      image.bytes.compare(Buffer.alloc(end - offset), 0, end - offset, offset, end) === 0
    if (!isZero) throw new LawBroken(`${image.name}: the hole at ${offset}..${end} is not zeroes`)
  }
}

function checkChanged(image: StoreImage, since: StoreImage, runs: readonly Run[]): void {
  for (const { offset, end, flags } of runs) {
    if ((flags & 1) !== 0) continue
    const before = Buffer.alloc(end - offset)
    since.bytes.subarray(offset, end).copy(before)
    if (image.bytes.compare(before, 0, before.length, offset, end) === 0) continue
    throw new LawBroken(
      `${image.name} differs from ${since.name} in ${offset}..${end}: not reported`,
    )
  }
}
