// docs/OPERATING.md against the program: its tables are complete, its examples run as they stand.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { formatSetting } from '../../src/app/config.js'
import { settingKeys, settings, variableOf } from '../../src/app/settings.js'
import { methods } from '../../src/control/methods.js'
import { ExitCode, errorCodes } from '../../src/core/errors.js'
import { missingTools, output, scratch } from '../support/process.js'
import { LockstepServer } from '../support/server.js'
import { root } from '../support/tree.js'

const document = readFileSync(join(root, 'docs', 'OPERATING.md'), 'utf8')
const lines = document.split('\n')

/** The fenced text behind the comment that names an example. */
function example(name: string): string {
  const match = new RegExp(`<!-- example: ${name} -->\n\`\`\`\\w+\n(.*?)\n\`\`\``, 's').exec(
    document,
  )
  return match?.[1] ?? ''
}

t.test('every setting has its row, with variable, default and description', (t) => {
  for (const key of settingKeys) {
    const setting = settings[key]
    const initial = formatSetting(setting, setting.default)
    const row = `| \`${key}\` | \`${variableOf(key)}\` | ${initial} | ${setting.description} |`
    t.ok(lines.includes(row), row)
  }
  t.end()
})

t.test('every method has its row, with an example that works', (t) => {
  for (const { name, example: parameters, summary } of methods.values()) {
    const row = `| \`${name}\` | \`${JSON.stringify(parameters)}\` | ${summary} |`
    t.ok(lines.includes(row), row)
  }
  t.end()
})

t.test('every error code and exit code has its meaning', (t) => {
  const rows = lines
    .filter((line) => line.startsWith('| '))
    .map((line) => line.split(' | ')[0] ?? '')
  const named = rows.flatMap((cell) => cell.replace('| ', '').split(', '))
  for (const code of errorCodes) t.ok(named.includes(code), code)
  for (const code of Object.values(ExitCode)) t.ok(named.includes(String(code)), String(code))
  t.end()
})

t.test('the example in Python does what it says', { skip: missingTools('python3') }, async (t) => {
  const volumes = { vol0: 1024 * 1024 }
  const server = await LockstepServer.start(t, { directory: scratch(t), volumes })
  const env = { LOCKSTEP_DIR: server.dataDirectory }
  const said = await output('python3', ['-c', example('python')], { env })
  t.match(said, /^2 \['vol0@hourly'\]\nvol0 1048576 0\nvol0@hourly 1048576 0\n$/)
})

t.test('the example in shell does what it says', { skip: missingTools('nc') }, async (t) => {
  const volumes = { vol0: 1024 * 1024 }
  const server = await LockstepServer.start(t, { directory: scratch(t), volumes })
  const env = { LOCKSTEP_DIR: server.dataDirectory }
  const said = await output('bash', ['-c', example('shell')], { env })
  t.match(JSON.parse(said), { id: 1, result: { stores: ['vol0@nightly'] } })
})
