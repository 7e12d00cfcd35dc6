// libnbd's Python shell with a few words of our own: scripts assert what they expect, and must come to their end.
import { output } from './process.js'

const prelude = `
import errno, hashlib, nbd, sys
h = nbd.NBD()
def fails(name, call, *args, **kw):
    try:
        call(*args, **kw)
    except nbd.Error as ex:
        assert ex.errnum == getattr(errno, name), (ex.errnum, str(ex))
        return str(ex)
    raise AssertionError('no error, expected ' + name)
def extents(offset, count, flags=0):
    found = []
    def one(context, start, entries, error):
        assert start == offset
        found.extend((context, entries[i], entries[i + 1]) for i in range(0, len(entries), 2))
    h.block_status(count, offset, one, flags)
    return found
`

/** Runs Python with `h` connected to `uri`; `setup` comes before the connection. Answers what it printed; rejects unless it came to its end. */
export async function nbdsh(uri: string, script: string, setup = ''): Promise<string> {
  const body = script.replace(/^ {4}/gm, '')
  const text = await output('nbdsh', [
    '-c',
    `${prelude}\n${setup}\nh.connect_uri('${uri}')\n${body}\nprint('done')`,
  ])
  if (!text.endsWith('done\n')) throw new Error(`the script did not come to its end: ${text}`)
  return text.slice(0, -'done\n'.length)
}
