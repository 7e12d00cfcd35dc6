// The kernel's count of how long the main thread waited for a processor.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { openRunDelay } from '../../src/storage/node-disk-run-delay.js'

t.test('the second number is nanoseconds', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'run-delay-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'schedstat')
  writeFileSync(path, '410696 65298000 12\n')
  const runDelayMs = openRunDelay(path)
  t.equal(runDelayMs(), 65.298)
  writeFileSync(path, '410696 1065298000 13\n')
  t.equal(runDelayMs(), 1065.298, 'it is read anew')
  writeFileSync(path, 'no numbers\n')
  t.equal(runDelayMs(), undefined)
})

t.test('a kernel that does not count says undefined', async (t) => {
  t.equal(openRunDelay('/proc/self/absent')(), undefined)
})

t.test("this process's own never goes back", async (t) => {
  const runDelayMs = openRunDelay()
  const first = runDelayMs() ?? 0
  t.ok((runDelayMs() ?? 0) >= first)
})
