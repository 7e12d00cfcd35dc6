// Lines reach their target in order, and a target that takes nothing, or nothing any more, holds up neither the writer nor its end.
import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import { LogWriter, openLogTarget } from '../../src/app/log-writer.js'
import { missingTools, output, scratch } from '../support/process.js'

/** What a pipe of the system holds. */
const pipeBytes = 65_536

const nothingLost = (): void => {}

function opened(t: Test, path: string, flags: string): number {
  const fd = openSync(path, flags)
  t.teardown(() => closeSync(fd))
  return fd
}

/** A pipe of the system, both ends ours. */
async function namedPipe(t: Test): Promise<number> {
  const path = join(scratch(t), 'pipe')
  await output('mkfifo', [path])
  return opened(t, path, 'r+')
}

function readAll(fd: number, sizeBytes: number): string {
  const bytes = Buffer.alloc(sizeBytes)
  let end = 0
  while (end < sizeBytes) end += readSync(fd, bytes, end, sizeBytes - end, null)
  return bytes.toString()
}

t.test('a file has every line in order, those in flight at the flush too', async (t) => {
  const path = join(scratch(t), 'log')
  const target = openLogTarget(opened(t, path, 'a'))
  t.equal(target.isSlow, true)
  const writer = new LogWriter({ target, onTaken: nothingLost })
  for (let line = 0; line < 1000; line++) writer.write(`line ${line}\n`)
  // The first batch is in a thread's hands: the others come after it only when it has been settled.
  while (readFileSync(path, 'latin1').split('\n').length <= 1000)
    await new Promise((resolve) => setImmediate(resolve))
  writer.write('last\n')
  writer.flush()
  const expected = Array.from({ length: 1000 }, (_, line) => `line ${line}`)
  while (!readFileSync(path, 'latin1').includes('last'))
    await new Promise((resolve) => setImmediate(resolve))
  t.same(readFileSync(path, 'latin1').split('\n'), [...expected, 'last', ''])
})

t.test('an exit right after the flush loses no line', (t) => {
  const path = join(scratch(t), 'log')
  const module = pathToFileURL(join(import.meta.dirname, '../../src/app/log-writer.js'))
  const program = `
    const { LogWriter, openLogTarget } = await import('${module}')
    const writer = new LogWriter({ target: openLogTarget(2), onTaken: () => {} })
    for (let line = 0; line < 5000; line++) writer.write('line\\n')
    writer.flush()
    process.exit(3)`
  const stderr = opened(t, path, 'a')
  const { status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'ignore', stderr],
    timeout: 60_000,
  })
  t.equal(status, 3)
  t.equal(readFileSync(path, 'latin1'), 'line\n'.repeat(5000))
  t.end()
})

for (const isSlow of [true, false])
  t.test(`a full disk holds up nothing, ${isSlow ? 'beside' : 'on'} the loop`, (t) => {
    const fd = opened(t, '/dev/full', 'w')
    const writer = new LogWriter({ target: { fd, isSlow }, onTaken: () => t.fail('taken') })
    for (let line = 0; line < 1000; line++) writer.write('no room\n')
    writer.flush()
    writer.write('still none\n')
    writer.flush()
    t.pass('the flush came back')
    t.end()
  })

t.test('when lines are taken again, the number of the lost ones is told', async (t) => {
  const path = join(scratch(t), 'log')
  const target = { fd: opened(t, '/dev/full', 'w'), isSlow: false }
  const writer: LogWriter = new LogWriter({
    target,
    onTaken: (lostCount) => writer.write(`lost ${lostCount}\n`),
  })
  for (let line = 0; line < 7; line++) writer.write('no room\n')
  target.fd = opened(t, path, 'a')
  writer.write('room\n')
  writer.write('more\n')
  t.equal(readFileSync(path, 'latin1'), 'room\nlost 7\nmore\n')
})

t.test(
  'a reader that has stopped is not waited for for ever, and the line that it has in part is ended',
  {
    skip: missingTools('mkfifo'),
  },
  async (t) => {
    const fd = await namedPipe(t)
    const target = openLogTarget(fd)
    t.teardown(() => closeSync(target.fd))
    t.equal(target.isSlow, false)
    t.not(target.fd, fd, 'what others do with the pipe blocks as before')
    const writer: LogWriter = new LogWriter({
      target,
      onTaken: (lostCount) => writer.write(`lost ${lostCount}\n`),
    })
    writer.write(`${'x'.repeat(99_999)}\n`)
    writer.flush()
    t.equal(readAll(fd, pipeBytes), 'x'.repeat(pipeBytes))
    writer.write('again\n')
    writer.flush()
    t.equal(readAll(fd, 14), '\nagain\nlost 1\n')
  },
)

t.test(
  'a reader that comes back gets the lines that waited',
  { skip: missingTools('mkfifo') },
  async (t) => {
    const fd = await namedPipe(t)
    const target = openLogTarget(fd)
    t.teardown(() => closeSync(target.fd))
    const writer = new LogWriter({ target, onTaken: () => t.fail('none was lost') })
    const lines = Array.from({ length: 110 }, (_, line) => `${String(line).padStart(999)}\n`)
    for (const line of lines) writer.write(line)
    const first = readAll(fd, 60_000)
    writer.flush()
    t.equal(first + readAll(fd, 50_000), lines.join(''))
  },
)
