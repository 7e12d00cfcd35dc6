// The pieces that text for people is made of: columns, parts of a whole, complaints, and how something is painted.

export type Paint = (style: 'bold' | 'dim' | 'red' | 'green' | 'yellow', text: string) => string

/** What is not as it should be, in a sentence, and what to type. */
export type Complaint = { readonly status: string; readonly action: string }

/** Rows in columns as wide as their widest cell; numbers (sizes) to the right. */
export function table(
  rows: readonly (readonly string[])[],
  rightColumns: readonly number[],
): string {
  const columnCount = Math.max(0, ...rows.map((row) => row.length))
  const widths = Array.from({ length: columnCount }, (_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? '').length)),
  )
  return rows
    .map((row) =>
      row
        .map((cell, column) => {
          const width = widths[column] ?? 0
          return rightColumns.includes(column) ? cell.padStart(width) : cell.padEnd(width)
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

export function percent(part: number, whole: number): string {
  return `${whole === 0 ? 0 : Math.floor((part / whole) * 100)} %`
}
