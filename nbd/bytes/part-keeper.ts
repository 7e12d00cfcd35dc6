// Whose memory a payload lies in: for whoever needs it behind its request, to send it on without a copy.

export interface PartKeeper {
  /** What `views` show stays as it is until `letGo`, however long that takes. False when there is no room to keep more, or nobody can keep this memory: then it is copied. */
  keep(views: readonly Buffer[]): boolean
  letGo(views: readonly Buffer[]): void
  /** Before `letGo`: somebody may look at them even then, so their memory is not used again. */
  seal(views: readonly Buffer[]): void
}
