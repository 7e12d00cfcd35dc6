// How a conversation ends early: the peer broke the protocol, or it went away. Both mean that the connection is dropped, never that
// the program is wrong.

/** The peer sent what the protocol forbids: the connection is dropped. `message` is for the log; the peer does not see it. */
export class ProtocolError extends Error {
  override readonly name: string = 'ProtocolError'
}

/** The peer closed the connection while more bytes were awaited. `receivedBytes` of them had come: 0 is a clean place to stop. */
export class ConnectionEnded extends ProtocolError {
  override readonly name = 'ConnectionEnded'
  readonly receivedBytes: number

  constructor(receivedBytes: number, awaitedBytes: number) {
    super(`the connection ended after ${receivedBytes} of ${awaitedBytes} bytes`)
    this.receivedBytes = receivedBytes
  }
}
