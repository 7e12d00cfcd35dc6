// A long time slice for the thread that asks for it: it alone, and nothing of it but the slice.
import { execFileSync } from 'node:child_process'
import { release } from 'node:os'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { takeLongTimeSlice } from '../../src/app/time-slice.js'

const modulePath = fileURLToPath(new URL('../../src/app/time-slice.js', import.meta.url))

/** Kernels before 6.12 take the request and keep their own slice. */
function kernelTakesSlices(): boolean {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  return major > 6 || (major === 6 && minor >= 12)
}

/** In a process of its own: the slice would stay with this one. */
function inProcess(wrapper: readonly string[]): string {
  const script = `import(${JSON.stringify(modulePath)}).then(({ takeLongTimeSlice }) => console.log(takeLongTimeSlice()))`
  const [program = '', ...args] = [...wrapper, process.execPath, '-e', script]
  return execFileSync(program, args, { encoding: 'utf8', timeout: 60_000 }).trim()
}

t.test('the thread of the loop gets a slice of a tenth of a second', async (t) => {
  const sliceNs = Number(inProcess([]))
  if (kernelTakesSlices()) t.equal(sliceNs, 100_000_000)
  else t.ok(sliceNs >= 0, 'the kernel goes on as before')
})

t.test('priority stays as it was given', async (t) => {
  const script = `import(${JSON.stringify(modulePath)}).then(({ takeLongTimeSlice }) => { takeLongTimeSlice(); console.log(require('node:os').getPriority()) })`
  const text = execFileSync('nice', ['-n', '7', process.execPath, '-e', script], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  t.equal(text.trim(), '7')
})

t.test('a thread of another policy is left alone', async (t) => {
  t.equal(inProcess(['chrt', '--batch', '0']), 'undefined')
})

t.test('on an unknown architecture nothing happens', async (t) => {
  t.equal(takeLongTimeSlice('mips'), undefined)
})
