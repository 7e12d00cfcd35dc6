// Which changes of the link are news. A link that is down tries again for as long as it takes: what each attempt says is the same, and a thousand of them
// would push everything else out of the event log.
//
// Invariant: a state is told whenever it is not the one that was told last; attempts are told with what came of them, when that is news.
import type { LinkState } from '../replication/link-state.js'

export type LinkNews = { readonly link: LinkState; readonly reason: string }

export class LinkNewsFilter {
  /** Attempts of which nobody knows yet what comes of them. */
  #attempts: LinkNews[] = []
  #told: LinkNews | undefined

  /** What is to be told now, the oldest first. */
  changed(news: LinkNews): readonly LinkNews[] {
    const { link, reason } = news
    if (link === 'connecting' || link === 'greeting') {
      // The one before came to nothing, and said nothing.
      this.#attempts = [...this.#attempts.filter((attempt) => attempt.link !== link), news]
      return []
    }
    const attempts = this.#attempts
    this.#attempts = []
    if (this.#told?.link === link && this.#told.reason === reason) return []
    this.#told = news
    return [...attempts, news]
  }
}
