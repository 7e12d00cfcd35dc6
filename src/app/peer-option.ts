// The listening side of a peer's connection: two private options on the ordinary NBD port. All limits of an NBD handshake hold until the caller has
// proven itself; then the connection is the engine's.
//
// Invariant: a connection is handed on only after the proof that the secret demands; without a secret only from this machine.
import { OptionReply, type PrivateOption, type PrivateOptionContext } from '../../nbd/index.js'
import type { Random } from '../core/clock.js'
import type { Log } from '../core/log.js'
import type { ReplicationApi, TurnedAway } from '../engine/api.js'
import { isLoopback } from './listen.js'
import {
  GreetBody,
  GreetReply,
  isProof,
  type Nonces,
  nonceBytes,
  noProof,
  PeerFlag,
  PeerOption,
  Proof,
  peerProtocolVersion,
  proofOf,
} from './peer-protocol.js'
import { sameSecret } from './peer-secret.js'

export type PeerOptionParts = {
  readonly engine: Pick<ReplicationApi, 'acceptPeer' | 'peerTurnedAway'>
  readonly secret?: Buffer
  readonly random: Random
  readonly log: Pick<Log, 'debug'>
}

export function peerOptions(parts: PeerOptionParts): readonly PrivateOption[] {
  const listener = new PeerListener(parts)
  return [
    {
      option: PeerOption.GREET,
      name: 'LOCKSTEP_GREET',
      bodyBytesMax: GreetBody.lengthBytes,
      handle: (context) => listener.greet(context),
    },
    {
      option: PeerOption.JOIN,
      name: 'LOCKSTEP_JOIN',
      bodyBytesMax: Proof.lengthBytes,
      handle: (context) => listener.join(context),
    },
  ]
}

const hasOtherSecret: TurnedAway = {
  kind: 'secret',
  reason: 'the secret is another one',
  action: sameSecret,
}
const hasNoSecret: TurnedAway = {
  kind: 'secret',
  reason: 'it has no secret, and this node has one',
  action: sameSecret,
}

class PeerListener {
  readonly #parts: PeerOptionParts
  /** What was said on connections that have not joined yet; a challenge is used once. */
  readonly #greeted = new WeakMap<object, Nonces>()

  constructor(parts: PeerOptionParts) {
    this.#parts = parts
  }

  async greet(context: PrivateOptionContext): Promise<void> {
    const { body } = context
    if (body.length !== GreetBody.lengthBytes) return refuseInvalid(context, 'a peer greeting')
    const { versionMin, versionMax, nonce } = GreetBody.decode(body)
    if (versionMin > peerProtocolVersion || versionMax < peerProtocolVersion) {
      const theirs = `${versionMin} to ${versionMax}`
      return this.#refuse(context, {
        kind: 'version',
        reason: `this node speaks version ${peerProtocolVersion} of the handshake, not ${theirs}`,
        action: 'use one release of lockstep on both nodes',
      })
    }
    const refusal = this.#refusalOf(context)
    if (refusal !== undefined) return this.#refuse(context, refusal)
    const listener = Buffer.from(this.#parts.random.hex(nonceBytes), 'hex')
    this.#greeted.set(context.conversation, { caller: Buffer.from(nonce), listener })
    const flags = this.#parts.secret === undefined ? 0 : PeerFlag.HAS_SECRET
    const reply = { version: peerProtocolVersion, flags, nonce: listener }
    await context.reply(OptionReply.ACK, GreetReply.encode(reply))
  }

  async join(context: PrivateOptionContext): Promise<void> {
    const nonces = this.#greeted.get(context.conversation)
    this.#greeted.delete(context.conversation)
    if (nonces === undefined || context.body.length !== Proof.lengthBytes) {
      return refuseInvalid(context, 'a peer proof')
    }
    const { secret, engine } = this.#parts
    if (secret !== undefined && !isProof(context.body, 'caller', secret, nonces)) {
      return this.#refuse(context, context.body.equals(noProof) ? hasNoSecret : hasOtherSecret)
    }
    const proof = secret === undefined ? noProof : proofOf('listener', secret, nonces)
    await context.reply(OptionReply.ACK, proof)
    const { stream, received } = context.takeOver()
    for (const piece of received.toReversed()) stream.unshift(piece)
    // Its own business from here on; it never rejects.
    void engine.acceptPeer(stream, context.peer)
  }

  #refusalOf(context: PrivateOptionContext): TurnedAway | undefined {
    if (this.#parts.secret !== undefined || isFromHere(context.peer)) return undefined
    return {
      kind: 'no-secret',
      reason: 'nodes on two machines need a secret',
      action: sameSecret,
    }
  }

  async #refuse(context: PrivateOptionContext, why: TurnedAway): Promise<void> {
    const { reason } = why
    // The engine tells of it, as often as somebody can read.
    this.#parts.log.debug({ peer: context.peer, reason }, 'peer turned away')
    this.#parts.engine.peerTurnedAway(context.peer, why)
    await context.reply(OptionReply.ERR_POLICY, Buffer.from(reason))
  }
}

async function refuseInvalid(context: PrivateOptionContext, what: string): Promise<void> {
  await context.reply(OptionReply.ERR_INVALID, Buffer.from(`this is not ${what}`))
}

/** `peer` is an address with a port, or `unix`. */
function isFromHere(peer: string): boolean {
  return peer === 'unix' || isLoopback(peer.slice(0, peer.lastIndexOf(':')))
}
