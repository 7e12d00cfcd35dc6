// What must have happened in many schedules of two nodes for them to prove anything: each is a sum of what a schedule counts.

type RareState = {
  readonly name: string
  /** Any of these is it. */
  readonly counted: RegExp
  /** Some hundred schedules have it. */
  readonly isUsual?: boolean
}

export const rareStates: readonly RareState[] = [
  { name: 'outbox overflow during a resync', counted: /^overflow while resyncing/, isUsual: true },
  { name: 'outbox overflow while streaming', counted: /^overflow while streaming/, isUsual: true },
  {
    name: 'outbox overflow while the peer is away',
    counted: /^overflow while (offline|connecting|greeting)/,
    isUsual: true,
  },
  { name: 'writers waited for room', counted: /^writers wait for room/ },
  {
    name: 'secondary ended during replay',
    counted: /^(kill|power loss) of the secondary while replaying/,
  },
  {
    name: 'primary ended during replay',
    counted: /^(kill|power loss) of the primary while replaying/,
  },
  {
    name: 'secondary ended during a resync',
    counted: /^(kill|power loss) of the secondary while resyncing/,
    isUsual: true,
  },
  {
    name: 'primary ended during a resync',
    counted: /^(kill|power loss) of the primary while resyncing/,
    isUsual: true,
  },
  { name: 'a node ended during its recovery', counted: /^(kill|power loss) of .* in recovery/ },
  { name: 'both nodes down', counted: /^both nodes down/, isUsual: true },
  {
    name: 'before-resync kept through a crash',
    counted: /^before-resync kept through a crash/,
    isUsual: true,
  },
  {
    name: 'a resync that was begun went on',
    counted: /the resync that was begun/,
    isUsual: true,
  },
  { name: 'the copying was cut off', counted: /^resync: the copying was cut off/, isUsual: true },
  { name: 'a blank secondary got everything', counted: /is blank$/, isUsual: true },
  {
    name: 'the stream went on from the outbox',
    counted: /^link: link (resyncing|streaming): the stream went on behind/,
    isUsual: true,
  },
  { name: 'an operation was replayed', counted: /^frame replay/, isUsual: true },
  { name: 'a chunk was shared', counted: /^frame of a share/, isUsual: true },
  { name: 'zeroes went over as a range', counted: /^frame zero/, isUsual: true },
  { name: 'digests were compared', counted: /^frame compared/, isUsual: true },
  { name: 'a new generation without the peer', counted: /a new generation began$/, isUsual: true },
  {
    name: 'cut within an entry',
    counted: /^cut within a frame: (write|zero|operation)/,
    isUsual: true,
  },
  { name: 'cut within a greeting', counted: /^cut within a frame: (hello|decision|ready)/ },
  { name: 'cut within digests or their outcome', counted: /^cut within a frame: compare/ },
  { name: 'cut within a replayed operation', counted: /^cut within a frame: replay/ },
  { name: 'cut within a digest answer', counted: /^cut within a frame: digest-answer/ },
  { name: 'a frame came twice', counted: /^frame repeated/, isUsual: true },
  { name: 'two frames changed places', counted: /^frames swapped/, isUsual: true },
  { name: 'a frame of an old connection', counted: /^frame of an old connection/ },
  { name: 'a checksum was wrong', counted: /checksum/ },
  { name: 'a silent peer was given up', counted: /silent|nothing came|half open/ },
  { name: 'read error on the primary', counted: /^read error \(a\)/, isUsual: true },
  { name: 'read error on the secondary', counted: /^read error \(b\)/, isUsual: true },
  { name: 'write error on the primary', counted: /^write error \(a\)/, isUsual: true },
  { name: 'write error on the secondary', counted: /^write error \(b\)/, isUsual: true },
  { name: 'failed sync on the primary', counted: /^failed sync \(a\)/, isUsual: true },
  { name: 'failed sync on the secondary', counted: /^failed sync \(b\)/, isUsual: true },
  { name: 'full disk on the primary', counted: /^refused (ENOSPC|NO_SPACE)/ },
  { name: 'full disk on the secondary', counted: /^disk full \(b\)/ },
  { name: 'a write failed on the primary', counted: /^request failed EIO/ },
  { name: 'a mark was kept', counted: /^mark kept/, isUsual: true },
  { name: 'a mark was compared with the primary', counted: /^mark compared/, isUsual: true },
  { name: 'verify found nothing wrong', counted: /^verify done/, isUsual: true },
  {
    name: 'verify found damage, and repaired it',
    counted: /^verify found and repaired/,
    isUsual: true,
  },
  {
    name: 'what verify found was known after an end of the primary',
    counted: /^a difference was known after/,
    isUsual: true,
  },
  {
    name: 'a repair of one store left differences in another',
    counted: /^a repair left differences elsewhere/,
  },
  {
    name: 'a look at what is lacking, in pieces',
    counted: /^looked at what is lacking/,
    isUsual: true,
  },
  { name: 'a read from the secondary', counted: /^read from the second node/, isUsual: true },
  { name: 'a snapshot of a snapshot', counted: /^snapshot of a snapshot/, isUsual: true },
  { name: 'a volume with an old name', counted: /^volume made again/, isUsual: true },
  { name: 'a batch', counted: /^batch/, isUsual: true },
  { name: 'a write of parts of sectors', counted: /^write of parts of sectors/, isUsual: true },
  {
    name: 'a write right behind a flush',
    counted: /^write right behind a flush/,
    isUsual: true,
  },
  {
    name: 'the mode was changed while streaming',
    counted: /^operator: mode while streaming/,
    isUsual: true,
  },
  { name: 'disconnected while resyncing', counted: /^operator: disconnect while resyncing/ },
]

/** How often each happened. */
export function coverageOf(
  totals: ReadonlyMap<string, number>,
): readonly { readonly name: string; readonly count: number; readonly isUsual: boolean }[] {
  return rareStates.map(({ name, counted, isUsual = false }) => {
    let count = 0
    for (const [what, times] of totals) if (counted.test(what)) count += times
    return { name, count, isUsual }
  })
}
