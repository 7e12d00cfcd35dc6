// What `peer set` said, kept across starts in DIR/peer.json: lockstep.toml is the administrator's own and is never written.
//
// The last word counts. What `peer set` said holds until a flag, variable or file gives the setting another value than it had then: whoever edits the
// configuration afterwards means it.
import { constants } from 'node:fs'
import { open, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { errnoNameOf, LockstepError } from '../core/errors.js'
import { NotAFile } from '../storage/node-disk-kind.js'
import { readPlainFile } from './plain-file.js'

export const keptPeerName = 'peer.json'
export const keptPeerTemporaryName = `${keptPeerName}.tmp`
/** As 'w', and never through a link that somebody left there, nor waiting for who reads a pipe. */
const writeFlags =
  constants.O_WRONLY |
  constants.O_CREAT |
  constants.O_TRUNC |
  constants.O_NOFOLLOW |
  constants.O_NONBLOCK

export const keptKeys = ['peer', 'mode', 'max-rate'] as const
export type KeptKey = (typeof keptKeys)[number]

/** `instead` is what the configuration said when it was set. */
export type KeptPeer = { readonly [K in KeptKey]?: Kept }
type Kept = { readonly value: string; readonly instead: string }

/** What holds without it, and where that is from. */
export type Configured = {
  readonly [K in KeptKey]: { readonly value: string; readonly origin: string }
}

/** Nothing is kept when there is no file. Rejects with INVALID_CONFIG. */
export async function readKeptPeer(directory: string): Promise<KeptPeer> {
  const path = join(directory, keptPeerName)
  let text: string
  try {
    text = await readPlainFile(path)
  } catch (error) {
    if (error instanceof NotAFile)
      throw unreadable(path, `it is ${error.kind}, not a file`, `move ${path} away`)
    const errno = errnoNameOf(error)
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return {}
    throw unreadable(path, errno)
  }
  try {
    const value = Object(JSON.parse(text)) as Record<string, unknown>
    const found = keptKeys.flatMap((key) => (isKept(value[key]) ? [[key, value[key]]] : []))
    if (found.length > 0 && found.length === Object.keys(value).length)
      return Object.fromEntries(found) as KeptPeer
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
  }
  throw unreadable(path, 'it is not what peer set wrote')
}

function isKept(value: unknown): value is Kept {
  const { value: kept, instead } = (value ?? {}) as Record<string, unknown>
  return typeof kept === 'string' && typeof instead === 'string'
}

/** Durable when it resolves; all of it or nothing. Rejects with IO_ERROR. */
export async function writeKeptPeer(directory: string, kept: KeptPeer): Promise<void> {
  const path = join(directory, keptPeerName)
  try {
    if (Object.keys(kept).length === 0) await rm(path, { force: true })
    else {
      const temporary = join(directory, keptPeerTemporaryName)
      const file = await open(temporary, writeFlags, 0o600)
      try {
        await file.writeFile(`${JSON.stringify(kept)}\n`)
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(temporary, path)
    }
    const folder = await open(directory)
    await folder.sync().finally(() => folder.close())
  } catch (error) {
    throw new LockstepError(
      'IO_ERROR',
      `${path} cannot be written (${errnoNameOf(error)}); nothing was changed`,
      'make room, or check the permissions of the data directory',
    )
  }
}

/** What of it still holds. */
export function stillKept(kept: KeptPeer, configured: Configured): KeptPeer {
  const found = keptKeys.flatMap((key) => {
    const one = kept[key]
    if (one === undefined) return []
    const { value, origin } = configured[key]
    return origin !== 'default' && value !== one.instead ? [] : [[key, one]]
  })
  return Object.fromEntries(found) as KeptPeer
}

/** After `peer set`. What the configuration says by itself need not be kept. */
export function withChanges(
  kept: KeptPeer,
  changes: { readonly [K in KeptKey]?: string | undefined },
  configured: Configured,
): KeptPeer {
  const found = keptKeys.flatMap((key) => {
    const value = changes[key]
    const instead = configured[key].value
    if (value === undefined) return kept[key] === undefined ? [] : [[key, kept[key]]]
    return value === instead ? [] : [[key, { value, instead }]]
  })
  return Object.fromEntries(found) as KeptPeer
}

function unreadable(path: string, reason: string, remedy = `rm ${path}`): LockstepError {
  return new LockstepError(
    'INVALID_CONFIG',
    `${path} cannot be read: ${reason}`,
    `${remedy}, and say again: lockstep peer set`,
  )
}
