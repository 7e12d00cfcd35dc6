// A name that was refused, as a message shows it: whole, or cut with the length that it has, so that nobody looks for the mistake in the letters.

const lettersShown = 40

/** In quotes. `lettersMax` is what such a name may have. */
export function shownName(name: string, lettersMax: number): string {
  if (name.length <= lettersMax) return `"${name}"`
  return `"${name.slice(0, lettersShown)}…" (${name.length} letters, at most ${lettersMax})`
}
