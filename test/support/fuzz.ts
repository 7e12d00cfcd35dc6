// A mutational fuzzer for parsers. A target runs an input, given in pieces, and says all that can be seen of it as a string; it throws
// for whatever must not happen. Each mutated input runs whole and in random pieces: both must give the same.
import assert from 'node:assert/strict'
import { SeededRandom } from './random.js'

export type FuzzTarget = {
  readonly name: string
  /** Inputs that are good, to be spoilt. */
  seeds(): Promise<readonly Buffer[]> | readonly Buffer[]
  /** What became of the input. Declared errors are a result; any other is a finding. Must check what memory and steps it took. */
  run(pieces: readonly Buffer[]): Promise<string> | string
}

/** What was found, with all that is needed to see it again. */
export class FuzzFinding extends Error {
  override readonly name = 'FuzzFinding'
  readonly command: string

  constructor(target: FuzzTarget, seed: number, input: Buffer, cause: unknown) {
    const hex = input.length > 4096 ? `${input.length} bytes` : input.toString('hex')
    super(`${target.name}, seed ${seed}: ${String(cause)}\ninput: ${hex}`, { cause })
    this.command = `scripts/fuzz --target '${target.name}' --rounds 1 --seed ${seed}`
  }
}

const runTimeoutMs = 10_000
const inputBytesMax = 20_000
const interesting = [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]

/** Runs `rounds` mutated inputs; round n of seed s is round 0 of seed s + n. Returns the number of different results. */
export async function fuzz(
  target: FuzzTarget,
  options: { readonly rounds: number; readonly seed: number },
): Promise<number> {
  const seeds = await target.seeds()
  assert(seeds.length > 0)
  for (const input of seeds) await runTwice(target, new SeededRandom(0), 0, input)
  const results = new Set<string>()
  for (let round = 0; round < options.rounds; round++) {
    const seed = options.seed + round
    const random = new SeededRandom(seed)
    const input = mutate(random, seeds)
    results.add(await runTwice(target, random, seed, input))
  }
  return results.size
}

async function runTwice(
  target: FuzzTarget,
  random: SeededRandom,
  seed: number,
  input: Buffer,
): Promise<string> {
  try {
    const whole = await inTime(target, [input])
    const pieces = await inTime(target, cut(random, input))
    assert.equal(pieces, whole, 'in pieces the result is another')
    return whole
  } catch (error) {
    throw new FuzzFinding(target, seed, input, error)
  }
}

async function inTime(target: FuzzTarget, pieces: readonly Buffer[]): Promise<string> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('it does not end')), runTimeoutMs)
  })
  try {
    return await Promise.race([target.run(pieces), late])
  } finally {
    clearTimeout(timer)
  }
}

function cut(random: SeededRandom, input: Buffer): Buffer[] {
  const pieces: Buffer[] = []
  const lengthMax = random.pick([1, 7, 30, 500])
  // One byte at a time is slow for long inputs, and finds nothing more in them.
  const end = lengthMax < 30 ? Math.min(input.length, 200) : input.length
  for (let at = 0; at < input.length; ) {
    const length = at < end ? 1 + random.below(lengthMax) : input.length - at
    pieces.push(input.subarray(at, at + length))
    at += length
  }
  return pieces
}

function mutate(random: SeededRandom, seeds: readonly Buffer[]): Buffer {
  let input = Buffer.from(random.pick(seeds))
  const count = 1 + random.below(6)
  for (let step = 0; step < count; step++) input = mutateOnce(random, input, seeds)
  return input.subarray(0, inputBytesMax)
}

function mutateOnce(
  random: SeededRandom,
  input: Buffer,
  seeds: readonly Buffer[],
): Buffer<ArrayBuffer> {
  const at = random.below(input.length + 1)
  const length = Math.min(input.length - at, 1 + random.below(40))
  const before = input.subarray(0, at)
  const behind = input.subarray(at + length)
  switch (random.below(8)) {
    case 0:
      return overwrite(input, at, Buffer.from([(input[at] ?? 0) ^ (1 << random.below(8))]))
    case 1:
      return overwrite(input, at, Buffer.from([random.below(256)]))
    case 2: {
      const value = Buffer.alloc(8)
      value.writeUInt32BE(random.pick(interesting), 4)
      return overwrite(input, at, value.subarray(random.pick([0, 4, 6])))
    }
    case 3:
      return Buffer.concat([before, behind])
    case 4:
      return Buffer.concat([before, random.bytes(length), input.subarray(at)])
    case 5:
      return Buffer.concat([before, input.subarray(at, at + length), input.subarray(at)])
    case 6:
      return Buffer.concat([before])
    default: {
      const other = random.pick(seeds)
      return Buffer.concat([before, other.subarray(random.below(other.length + 1))])
    }
  }
}

function overwrite(input: Buffer, at: number, value: Buffer): Buffer<ArrayBuffer> {
  return Buffer.concat([input.subarray(0, at), value, input.subarray(at + value.length)])
}
