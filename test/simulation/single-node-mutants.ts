// The planted bugs of one node: mutants.test.ts says which checker finds each of them.

export const singleNodeMutants = [
  'skip-data-sync',
  'skip-journal-sync',
  'inplace-on-shared',
  'reuse-before-journal',
  'forget-zero-fill',
  'snapshot-misses-inflight',
  'release-ignores-readers',
  'retry-failed-sync',
] as const
