// What one test file's TAP says, read line by line: how many of its tests passed, failed or were skipped, its comments, and the
// failing parts. A test is a point at the file's outermost level; one all of whose parts were skipped counts as skipped.

export type TapReport = {
  readonly passed: readonly string[]
  readonly failed: readonly string[]
  readonly skipped: readonly string[]
  /** What tests told people with `t.comment`: counts of things tried. */
  readonly comments: readonly string[]
  /** Failing points with their diagnostics, in order. */
  readonly failures: readonly string[]
  /** True when the file came to its plan: it was not cut short. */
  readonly isComplete: boolean
}

const pointPattern = /^( *)(not )?ok \d+(?: - (.*))?$/
const noise = /^(Subtest|time=|timeout=|\{|No coverage|bail)/

export class TapReader {
  readonly #passed: string[] = []
  readonly #failed: string[] = []
  readonly #skipped: string[] = []
  readonly #comments: string[] = []
  readonly #failures: string[] = []
  #partsRun = 0
  #partsSkipped = 0
  #partsFailed = 0
  #plannedCount: number | undefined
  /** Diagnostics that belong to the failing point above are indented more than it. */
  #failureIndent: number | undefined

  line(line: string): void {
    const point = pointPattern.exec(line)
    if (point) {
      this.#point({
        indent: (point[1] ?? '').length,
        isOk: point[2] === undefined,
        title: point[3] ?? '',
        line,
      })
      return
    }
    const plan = /^1\.\.(\d+)/.exec(line)
    if (plan) this.#plannedCount = Number(plan[1])
    const comment = /^ *# (.*)$/.exec(line)?.[1]
    if (comment !== undefined && !noise.test(comment)) this.#comments.push(comment)
    const indent = line.length - line.trimStart().length
    if (this.#failureIndent !== undefined && indent > this.#failureIndent) this.#failures.push(line)
    else this.#failureIndent = undefined
  }

  report(): TapReport {
    const count = this.#passed.length + this.#failed.length + this.#skipped.length
    return {
      passed: this.#passed,
      failed: this.#failed,
      skipped: this.#skipped,
      comments: this.#comments,
      failures: this.#failures,
      isComplete: this.#plannedCount === count,
    }
  }

  #point(point: {
    readonly indent: number
    readonly isOk: boolean
    readonly title: string
    readonly line: string
  }): void {
    const isSkipped = /# SKIP\b/i.test(point.title)
    const title = point.title.replace(/ # (time=|SKIP).*$/i, '')
    // A test whose parts failed has nothing to add but its name.
    const isTold = point.isOk || (point.indent === 0 && this.#partsFailed > 0)
    this.#failureIndent = isTold ? undefined : point.indent
    if (!point.isOk) this.#failures.push(point.line)
    if (point.indent > 0) {
      if (!point.isOk) this.#partsFailed++
      if (isSkipped) this.#partsSkipped++
      else this.#partsRun++
      return
    }
    const wholeSkipped = isSkipped || (this.#partsSkipped > 0 && this.#partsRun === 0)
    if (!point.isOk) this.#failed.push(title)
    else if (wholeSkipped) this.#skipped.push(title)
    else this.#passed.push(title)
    this.#partsRun = 0
    this.#partsSkipped = 0
    this.#partsFailed = 0
  }
}
