// What names may be made of, and which of them nobody may give: known without a look at any store.
//
// Invariant: no store of the stream can have a name that a replica gives to what it keeps for itself, whatever clients of the primary call theirs.
import { LockstepError } from './errors.js'
import { shownName } from './shown-name.js'

const partPattern = /^[A-Za-z0-9][A-Za-z0-9._:+-]{0,126}$/
const partLettersMax = 127
/** Two parts with the `@` between them. */
const nameLettersMax = 2 * partLettersMax + 1

/** What a mark leaves on the secondary: `vol0@local.nightly`. */
export const markPrefix = 'local.'
/** What a secondary had before a resync: `vol0@before-resync`, and of a snapshot `vol0@before-resync.monday`. */
export const beforeResyncName = 'before-resync'

/** One part of a name: a volume's, or a snapshot's behind the `@`. Throws INVALID_NAME. */
export function checkNamePart(part: string): string {
  if (partPattern.test(part)) return part
  throw new LockstepError(
    'INVALID_NAME',
    `${shownName(part, partLettersMax)} is not a name`,
    'use 1 to 127 letters, digits and . _ : + - and begin with a letter or digit, such as vol0 or monday',
  )
}

/** The part of a snapshot's name that is there, perhaps one of a replica's own. Throws INVALID_NAME. */
export function checkKnownPart(part: string): string {
  const given = [markPrefix, `${beforeResyncName}.`].find((prefix) => part.startsWith(prefix))
  checkNamePart(part.slice(given?.length ?? 0))
  return part
}

/** Behind the `@` of what a replica keeps for itself. */
export function isReserved(part: string): boolean {
  return (
    part.startsWith(markPrefix) ||
    part === beforeResyncName ||
    part.startsWith(`${beforeResyncName}.`)
  )
}

/** `part` itself. Throws INVALID_NAME for names that snapshots of the stream may not have. */
export function checkUnreserved(part: string): string {
  if (!isReserved(part)) return part
  throw new LockstepError(
    'INVALID_NAME',
    `snapshots named "${markPrefix}…" and "${beforeResyncName}" are those that a replica keeps for itself`,
    `choose another name, such as ${part.startsWith(markPrefix) ? part.slice(markPrefix.length) || 'monday' : 'before-upgrade'}`,
  )
}

/** A volume's whole name. Throws INVALID_NAME. */
export function checkVolumeName(name: string): string {
  if (!name.includes('@')) return checkNamePart(name)
  throw new LockstepError(
    'INVALID_NAME',
    `${shownName(name, nameLettersMax)} is a snapshot, not a volume`,
    'name the volume: the part before the @',
  )
}

/** `volume@snapshot`. Throws INVALID_NAME. */
export function checkSnapshotName(name: string): string {
  const [volume = '', snapshot = '', ...more] = name.split('@')
  const isSnapshot = volume !== '' && snapshot !== '' && more.length === 0
  if (!isSnapshot)
    throw new LockstepError(
      'INVALID_NAME',
      `${shownName(name, nameLettersMax)} does not name a snapshot`,
      more.length === 0
        ? 'write VOLUME@SNAPSHOT, such as vol0@monday'
        : 'a snapshot of a snapshot is one of the volume: write VOLUME@SNAPSHOT, with one @',
    )
  checkNamePart(volume)
  checkKnownPart(snapshot)
  return name
}

/** `volume` or `volume@snapshot`. Throws INVALID_NAME. */
export function checkStoreName(name: string): string {
  return name.includes('@') ? checkSnapshotName(name) : checkNamePart(name)
}
