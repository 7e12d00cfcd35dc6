// What survives a crash: the files and names of one node's simulated disk, and every state that a crash could leave of them.
//
// Invariant: names are durable as of the last directory sync; any subset of the later creations, renames and removals may be
// too, each whole by itself (a rename takes one name away and sets the other in one piece).
import type { SeededRandom } from './random.js'
import {
  contentAfterCrash,
  type FileCapture,
  type FileContent,
  lengthChoices,
  type SectorChoice,
  SimFile,
  sectorBytes,
  sectorChoices,
} from './sim-file.js'

type NameChange = {
  readonly sets: readonly (readonly [string, SimFile | undefined])[]
  isGone: boolean
}

export class SimMedium {
  readonly #names: Map<string, SimFile>
  #durable: Map<string, SimFile>
  #changes: NameChange[] = []
  #changeCount = 0

  constructor(files: ReadonlyMap<string, FileContent> = new Map()) {
    this.#names = new Map([...files].map(([name, content]) => [name, new SimFile(content)]))
    this.#durable = new Map(this.#names)
  }

  /** Differs after every change of what a crash could leave. */
  get changeCount(): number {
    let count = this.#changeCount
    for (const file of this.#names.values()) count += file.changeCount
    return count
  }

  get allocatedPages(): number {
    let count = 0
    for (const file of new Set(this.#names.values())) count += file.allocatedPages
    return count
  }

  find(name: string): SimFile | undefined {
    return this.#names.get(name)
  }

  names(): readonly string[] {
    return [...this.#names.keys()].sort()
  }

  create(name: string): SimFile {
    const file = new SimFile()
    this.#change([[name, file]])
    return file
  }

  rename(from: string, to: string): void {
    const file = this.#names.get(from)
    this.#change([
      [from, undefined],
      [to, file],
    ])
  }

  remove(name: string): void {
    this.#change([[name, undefined]])
  }

  beginSync(): readonly NameChange[] {
    return this.#changes.slice()
  }

  finishSync(changes: readonly NameChange[]): void {
    const durable = new Map(this.#durable)
    for (const change of changes) {
      if (change.isGone) continue
      applyNames(durable, change)
      change.isGone = true
    }
    this.#durable = durable
    this.#changes = this.#changes.filter((change) => !change.isGone)
    this.#changeCount++
  }

  /** The same disk after the process was killed and the machine went on: nothing is lost. */
  afterKill(): SimMedium {
    const copy = new Map<string, FileContent>()
    for (const [name, file] of this.#names) copy.set(name, file.content)
    return new SimMedium(copy)
  }

  capture(): MediumCapture {
    return new MediumCapture(this.#durable, this.#changes)
  }

  #change(sets: NameChange['sets']): void {
    // The count of a file that loses its name leaves the sum; this keeps the sum growing.
    for (const [name] of sets) this.#changeCount += 1 + (this.#names.get(name)?.changeCount ?? 0)
    const change = { sets, isGone: false }
    applyNames(this.#names, change)
    this.#changes.push(change)
  }
}

type FileState = {
  readonly capture: FileCapture
  readonly sectors: readonly SectorChoice[]
  readonly lengths: readonly number[]
}

/** One number a choice: which option a crash takes. Order: name changes, then for each file its length, then its sectors. */
export type CrashChoice = readonly number[]

/** A disk at the moment of a crash. */
export class MediumCapture {
  readonly #durable: ReadonlyMap<string, SimFile>
  readonly #changes: readonly NameChange[]
  readonly #files = new Map<SimFile, FileState>()
  /** How many options each choice has, and what belongs together: one sector group is one 4 KiB page of one write. */
  readonly optionCounts: readonly number[]
  readonly #pageOfChoice: readonly string[]

  constructor(durable: ReadonlyMap<string, SimFile>, changes: readonly NameChange[]) {
    this.#durable = new Map(durable)
    this.#changes = changes.slice()
    for (const file of durable.values()) this.#add(file)
    for (const { sets } of changes) for (const [, file] of sets) if (file) this.#add(file)
    const counts = changes.map(() => 2)
    const pages = changes.map((_, index) => `name ${index}`)
    let index = 0
    for (const { lengths, sectors } of this.#files.values()) {
      counts.push(lengths.length)
      pages.push(`${index} length`)
      for (const { sector, options } of sectors) {
        counts.push(options.length)
        pages.push(`${index} ${Math.floor((sector * sectorBytes) / 4096)}`)
      }
      index++
    }
    this.optionCounts = counts
    this.#pageOfChoice = pages
  }

  /** The disk that this crash leaves. */
  after(choice: CrashChoice): SimMedium {
    const names = new Map(this.#durable)
    let at = 0
    for (const change of this.#changes) if (choice[at++] === 1) applyNames(names, change)
    const contents = new Map<SimFile, FileContent>()
    for (const [file, { capture, lengths, sectors }] of this.#files) {
      const lengthBytes = lengths[choice[at++] ?? 0] ?? capture.lengthBytes
      const chosen = []
      for (const { sector, options } of sectors) {
        const option = choice[at++] ?? 0
        const bytes = options[option]
        if (option > 0 && bytes) chosen.push({ sector, bytes })
      }
      contents.set(file, contentAfterCrash(capture, chosen, lengthBytes))
    }
    const files = new Map<string, FileContent>()
    for (const [name, file] of names) {
      const content = contents.get(file)
      if (content) files.set(name, content)
    }
    return new SimMedium(files)
  }

  /** What of the choice tells it from others: which versions made it to the medium. */
  signature(choice: CrashChoice): string {
    const parts: string[] = []
    let at = 0
    this.#changes.forEach((_, index) => {
      if (choice[at++] === 1) parts.push(`n${index}`)
    })
    for (const { lengths, sectors } of this.#files.values()) {
      parts.push(`l${lengths[choice[at++] ?? 0]}`)
      for (const { sector, serials } of sectors) {
        const option = choice[at++] ?? 0
        if (option > 0) parts.push(`${sector}:${serials[option]}`)
      }
    }
    return parts.join(' ')
  }

  /** Every choice when there are at most `exhaustiveMax`, else: none, all, each alone, each one missing, and `randomCount` random ones. */
  choices(options: {
    readonly exhaustiveMax: number
    readonly singles: boolean
    readonly randomCount: number
    readonly random: SeededRandom
  }): readonly CrashChoice[] {
    const counts = this.optionCounts
    const total = counts.reduce((product, count) => Math.min(product * count, 2 ** 40), 1)
    if (total <= options.exhaustiveMax) return everyChoice(counts)
    const none = counts.map(() => 0)
    const all = counts.map((count) => count - 1)
    const found: CrashChoice[] = [none, all]
    if (options.singles) {
      counts.forEach((count, index) => {
        if (count === 1) return
        found.push(none.with(index, count - 1), all.with(index, 0))
      })
    }
    for (let i = 0; i < options.randomCount; i++) found.push(this.randomChoice(options.random))
    return found
  }

  /** Sector by sector, or in whole 4 KiB pages, or mostly old, or mostly new. */
  randomChoice(random: SeededRandom): CrashChoice {
    const keep = random.pick([0.1, 0.5, 0.5, 0.9])
    const wholePages = random.chance(0.4)
    const kept = new Map<string, boolean>()
    return this.optionCounts.map((count, index) => {
      const page = this.#pageOfChoice[index] ?? ''
      let isKept = random.chance(keep)
      if (wholePages) {
        isKept = kept.get(page) ?? isKept
        kept.set(page, isKept)
      }
      if (!isKept || count === 1) return 0
      return wholePages ? count - 1 : 1 + random.below(count - 1)
    })
  }

  /** The newest of what was not synced, from a write on that is chosen at random, and nothing of what was written before: who kept no order shows it here. */
  newestChoice(random: SeededRandom): CrashChoice {
    const states = [...this.#files.values()]
    const serials = states.flatMap(({ sectors }) => sectors.flatMap((one) => one.serials.slice(1)))
    const since = serials.length === 0 ? 0 : random.pick(serials)
    const ofNames = this.#changes.map(() => random.below(2))
    const ofFiles = states.flatMap(({ lengths, sectors }) => [
      random.chance(0.5) ? lengths.length - 1 : random.below(lengths.length),
      ...sectors.map((one) =>
        Math.max(
          0,
          one.serials.findLastIndex((serial) => serial >= since),
        ),
      ),
    ])
    return [...ofNames, ...ofFiles]
  }

  #add(file: SimFile): void {
    if (this.#files.has(file)) return
    const capture = file.capture()
    this.#files.set(file, {
      capture,
      sectors: sectorChoices(capture),
      lengths: lengthChoices(capture),
    })
  }
}

function applyNames(names: Map<string, SimFile>, change: NameChange): void {
  for (const [name, file] of change.sets) {
    if (file) names.set(name, file)
    else names.delete(name)
  }
}

function everyChoice(counts: readonly number[]): readonly CrashChoice[] {
  let found: number[][] = [[]]
  for (const count of counts) {
    const next: number[][] = []
    for (const prefix of found) {
      for (let option = 0; option < count; option++) next.push([...prefix, option])
    }
    found = next
  }
  return found
}
