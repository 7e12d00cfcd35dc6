// The table of settings: its defaults are the limits that the layers below have by themselves, and its keys can be written everywhere.
import t from 'tap'
import { defaultLimits } from '../../nbd/limits.js'
import { settingKeys, settings, variableOf } from '../../src/app/settings.js'
import { controlLimits } from '../../src/control/limits.js'

t.test('the defaults are those of the protocol library and of the control socket', (t) => {
  t.equal(settings.connections.default, defaultLimits.connectionCountMax)
  t.equal(settings.handshakes.default, defaultLimits.handshakeCountMax)
  t.equal(settings['handshake-timeout'].default * 1000, defaultLimits.handshakeTimeoutMs)
  t.equal(settings.options.default, defaultLimits.optionCountMax)
  t.equal(settings['option-bytes'].default, defaultLimits.optionBytesMax)
  t.equal(settings['payload-bytes'].default, defaultLimits.payloadBytesMax)
  t.equal(settings['requests-in-flight'].default, defaultLimits.requestCountMax)
  t.equal(settings['bytes-in-flight'].default, defaultLimits.inFlightBytesMax)
  t.equal(settings['unread-bytes'].default, defaultLimits.unreadBytesMax)
  t.equal(settings['unread-timeout'].default * 1000, defaultLimits.unreadTimeoutMs)
  t.equal(settings['memory-bytes'].default, defaultLimits.processBytesMax)
  t.equal(settings['control-connections'].default, controlLimits.connectionCountMax)
  t.equal(settings['control-line-bytes'].default, controlLimits.lineBytesMax)
  t.end()
})

t.test('keys are words with dashes, and each has its variable', (t) => {
  for (const key of settingKeys) t.match(key, /^[a-z]+(-[a-z]+)*$/)
  t.equal(variableOf('log-level'), 'LOCKSTEP_LOG_LEVEL')
  t.end()
})

t.test('every default is within its own bounds', (t) => {
  for (const setting of Object.values(settings)) {
    if (!('min' in setting)) continue
    t.ok(setting.min <= setting.default && setting.default <= setting.max, setting.description)
  }
  t.end()
})
