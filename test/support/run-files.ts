// Runs compiled test files side by side, keeps a log of each, and counts: the part of scripts/test that comes after the build.
// A file passes only when its process ended with 0, came to its plan and ran at least one test; whatever else happens is a failure.
//
//   node out/test/support/run-files.js [--quick] [--result FILE] [PATTERN...]     PATTERN: a part of a file's path
import { spawn } from 'node:child_process'
import { createWriteStream, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join, relative } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { TapReader, type TapReport } from './tap-report.js'
import { root } from './tree.js'

/** Left out by --quick: the emulated kernel, kill -9 loops, long enumerations, the schedules of two nodes, what waits for daemons for long, and other files of many seconds. They start first, since they take longest. */
const slowFiles = new RegExp(
  `^test/(${[
    'kernel/',
    'integration/((fio-)?kill-loop|pair-loop|old-copies|full-disk|full-replica|replica|snapshots|wrong-files|hostile-|silent-network|marks|verify|peer|start|block-device|backup)',
    'integration/(frozen-peer|shared-data|daemon|fio|limits|stopping|memory|changed-since)',
    'simulation/(crash-|failure-sweep|random|mutants|pair/(pair-(enumeration|sweep)|schedules|mutants|naive-pair))',
    '(engine/size-limits-peer|storage/tracking-crash|nbd/hostile-handshake)',
  ].join('|')})`,
)
/** Nothing here takes half as long on two busy cores; a file that does hangs. */
const fileTimeoutMs = 600_000
/** Where this file and the tests were compiled to: `out`. */
const compiledRoot = fileURLToPath(new URL('../../', import.meta.url))
const logDirectory = join(root, '.cache/test-logs')
/** A failure is told with this much of its diagnostics; the rest is in the log. */
const failureLinesMax = 80
/** Counts, not tales: those are in the log. */
const commentLinesMax = 8
const commentColumnsMax = 160

type FileResult = {
  readonly path: string
  readonly report: TapReport
  /** Why the file as a whole failed, beside its tests. */
  readonly trouble: string | undefined
  readonly seconds: number
}

function testFiles(patterns: readonly string[]): readonly string[] {
  const names = readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' })
  return names
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => join('test', name))
    .filter((path) => patterns.length === 0 || patterns.some((pattern) => path.includes(pattern)))
    .sort((a, b) => Number(slowFiles.test(b)) - Number(slowFiles.test(a)) || (a < b ? -1 : 1))
}

async function runFile(path: string): Promise<FileResult> {
  const compiled = join(compiledRoot, path.replace(/\.ts$/, '.js'))
  const log = createWriteStream(join(logDirectory, `${path.replaceAll('/', '-')}.log`))
  const reader = new TapReader()
  const startedMs = performance.now()
  const child = spawn(process.execPath, ['--enable-source-maps', compiled], {
    cwd: root,
    env: { ...process.env, TAP_TIMEOUT: String(fileTimeoutMs / 1000), FORCE_COLOR: '0' },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: fileTimeoutMs + 10_000,
    killSignal: 'SIGKILL',
  })
  child.stderr.pipe(log, { end: false })
  child.stdout.pipe(log, { end: false })
  createInterface({ input: child.stdout }).on('line', (line) => reader.line(line))
  const ended = await new Promise<string | number>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', (code, signal) => resolve(signal ?? code ?? 'nothing'))
  })
  log.end()
  const report = reader.report()
  const count = report.passed.length + report.failed.length + report.skipped.length
  const seconds = (performance.now() - startedMs) / 1000
  return { path, report, seconds, trouble: troubleOf({ report, ended, count, compiled }) }
}

function troubleOf(file: {
  readonly report: TapReport
  readonly ended: string | number
  readonly count: number
  readonly compiled: string
}): string | undefined {
  if (!existsSync(file.compiled)) return 'was not compiled: run scripts/test, or npm run build:test'
  if (file.count === 0) return `ran no test (ended with ${file.ended})`
  if (file.report.failed.length > 0) return undefined
  if (file.ended !== 0) return `ended with ${file.ended} although no test failed`
  return file.report.isComplete ? undefined : 'was cut short'
}

function tell(result: FileResult): void {
  const { report, trouble } = result
  const isBad = trouble !== undefined || report.failed.length > 0
  const counts = [
    `${report.passed.length} passed`,
    ...(report.failed.length > 0 ? [`${report.failed.length} failed`] : []),
    ...(report.skipped.length > 0 ? [`${report.skipped.length} skipped`] : []),
  ].join(', ')
  const line = `${isBad ? 'FAILED' : 'ok    '}  ${result.path}: ${counts}, ${result.seconds.toFixed(1)} s`
  const told = [
    line,
    ...report.comments
      .slice(0, commentLinesMax)
      .map((comment) => `          ${comment.slice(0, commentColumnsMax)}`),
    ...(trouble === undefined ? [] : [`          the file ${trouble}`]),
    ...report.failures.slice(0, failureLinesMax).map((text) => `        | ${text}`),
  ]
  if (report.failures.length > failureLinesMax) told.push('        | … the rest is in the log')
  console.log(told.join('\n'))
}

const { values, positionals } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, result: { type: 'string' } },
  allowPositionals: true,
})
mkdirSync(logDirectory, { recursive: true })
const files = testFiles(positionals)
const leftOut = values.quick ? files.filter((path) => slowFiles.test(path)) : []
const queue = files.filter((path) => !leftOut.includes(path))
for (const path of leftOut) console.log(`skipped  ${path}: --quick`)

let passed = 0
let failed = 0
let skipped = leftOut.length
async function worker(): Promise<void> {
  for (let path = queue.shift(); path !== undefined; path = queue.shift()) {
    const result = await runFile(path)
    passed += result.report.passed.length
    failed += result.report.failed.length + (result.trouble === undefined ? 0 : 1)
    skipped += result.report.skipped.length
    tell(result)
  }
}
await Promise.all(Array.from({ length: Math.min(4, availableParallelism()) }, worker))
console.log(`logs: ${relative(process.cwd(), logDirectory) || '.'}`)
if (values.result === undefined)
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`)
else writeFileSync(values.result, `${passed} ${failed} ${skipped}\n`)
process.exitCode = failed > 0 || passed === 0 ? 1 : 0
