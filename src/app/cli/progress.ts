// How far long work is: a bar in place with rate and time left on a terminal, a line for each tenth elsewhere.
import { formatBytes } from '../../core/units.js'
import type { VerifyProgress } from '../../engine/api.js'
import type { Output } from './output.js'
import { resyncText } from './peer-text.js'

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
      this.#tellStep(doneBytes, totalBytes)
      return
    }
    const elapsedMs = this.#nowMs() - this.#startMs
    const isKnown = elapsedMs >= rateAfterMs
    const bytesPerSecond = isKnown ? ((doneBytes - this.#startBytes) / elapsedMs) * 1000 : 0
    const secondsLeft = (totalBytes - doneBytes) / bytesPerSecond
    const bar = resyncText({ doneBytes, totalBytes, bytesPerSecond, secondsLeft })
    this.#output.redraw(`${store}: ${bar}`)
  }

  /** The bar goes; what was said line by line stays. */
  end(): void {
    if (this.#output.canRedraw) this.#output.redraw('')
  }

  #tellStep(doneBytes: number, totalBytes: number): void {
    const part = totalBytes === 0 ? 100 : Math.floor((doneBytes / totalBytes) * 100)
    const step = Math.floor(part / stepPercent) * stepPercent
    const line = `${this.#store}: compared ${step} % of ${formatBytes(totalBytes)}`
    if (line === this.#lastLine) return
    this.#lastLine = line
    this.#output.note(line)
  }
}
