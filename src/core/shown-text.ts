// What somebody else wrote, for one line on a terminal: short, and nothing in it that moves the cursor or changes the direction of writing.

const shownLengthMax = 200
/** Controls, separators of lines, marks of direction. */
const unsafe = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]+/gu

export function shownText(text: string): string {
  const short = text.length > shownLengthMax ? `${text.slice(0, shownLengthMax)}…` : text
  return short.replaceAll(unsafe, ' ')
}
