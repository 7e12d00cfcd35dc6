// How far long work is: a bar in place with rate and time left on a terminal, a line for each tenth elsewhere. In JSON nothing.
import { formatBytes } from '../../core/units.js'
import type { PeerStatus, VerifyProgress } from '../../engine/api.js'
import type { Output } from './output.js'
import { resyncText } from './peer-text.js'

type Resync = NonNullable<PeerStatus['resync']>

/** Of the bar: as many as there is room for beside the text. */
const cellsMax = 24
const cellsMin = 4
const stepPercent = 10
/** A rate of the first moments says nothing. */
const rateAfterMs = 500

export class ProgressTeller {
  readonly #output: Output
  readonly #nowMs: () => number
  #store = ''
  #startMs = 0
  #startBytes = 0
  #lastLine = ''
  #isDrawn = false

  constructor(output: Output, nowMs: () => number = () => performance.now()) {
    this.#output = output
    this.#nowMs = nowMs
  }

  tell({ store, doneBytes, totalBytes }: VerifyProgress): void {
    if (store !== this.#store) {
      this.#store = store
      this.#startMs = this.#nowMs()
      this.#startBytes = doneBytes
    }
    if (!this.#output.canRedraw) {
      this.#tellStep(`${store}: compared`, { doneBytes, totalBytes })
      return
    }
    const elapsedMs = this.#nowMs() - this.#startMs
    const isKnown = elapsedMs >= rateAfterMs
    const bytesPerSecond = isKnown ? ((doneBytes - this.#startBytes) / elapsedMs) * 1000 : null
    const secondsLeft = bytesPerSecond === null ? null : (totalBytes - doneBytes) / bytesPerSecond
    this.#draw(store, { doneBytes, totalBytes, bytesPerSecond, secondsLeft })
  }

  /** As the daemon measures it. */
  tellResync(node: string, resync: Resync): void {
    if (this.#output.canRedraw) this.#draw(node, resync)
    else this.#tellStep(`${node}: brought up to date`, resync)
  }

  /** The bar goes; what was said line by line stays. */
  end(): void {
    if (this.#isDrawn) this.#output.redraw('')
    this.#isDrawn = false
  }

  /** The time left stands at the end: the bar is what gets shorter, then the name. */
  #draw(name: string, progress: Resync): void {
    this.#isDrawn = true
    const room = this.#output.columns - 1
    const widest = `${name}: ${resyncText(progress, cellsMax)}`
    const cells = Math.max(cellsMin, cellsMax - Math.max(0, widest.length - room))
    const text = resyncText(progress, cells)
    const nameRoom = Math.max(0, room - text.length - 2)
    const shown = name.length <= nameRoom ? `${name}: ` : `${name.slice(0, nameRoom)}: `
    this.#output.redraw(nameRoom === 0 ? text : `${shown}${text}`)
  }

  #tellStep(
    what: string,
    { doneBytes, totalBytes }: Pick<Resync, 'doneBytes' | 'totalBytes'>,
  ): void {
    const part = totalBytes === 0 ? 100 : Math.floor((doneBytes / totalBytes) * 100)
    const step = Math.floor(part / stepPercent) * stepPercent
    const line = `${what} ${step} % of ${formatBytes(totalBytes)}`
    if (line === this.#lastLine) return
    this.#lastLine = line
    this.#output.note(line)
  }
}
