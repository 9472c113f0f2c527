// A client that plays test vectors through ts-mls: JSON lines in, JSON lines out, without gRPC.
//
// `interop/peers/README.md` has the fields of a line.

import { createInterface } from "node:readline"
import { joinGroup, makePskIndex, processPrivateMessage, processPublicMessage } from "ts-mls"

import {
  CONFIG,
  HANDSHAKE,
  Lacking,
  WrongArgument,
  decode,
  key,
  keyPackageFrom,
  suiteById,
  treeFrom,
  welcomeFrom,
} from "./convert.mjs"
import { KNOWN_GAPS } from "./member.mjs"

const fromHex = (digits) => Uint8Array.from(Buffer.from(digits, "hex"))

// The Authentication Service of the vectors: it vouches for every name but those that begin with "!".
const authService = {
  async validateCredential(credential) {
    return Buffer.from(credential.identity ?? "").toString()[0] !== "!"
  },
}
const VECTOR_CONFIG = {
  ...CONFIG,
  authService,
  // ts-mls looks at lifetimes only where it is asked to; the vectors' is at most a hundred days.
  lifetimeConfig: { maximumTotalLifetime: 100n * 24n * 3600n, validateLifetimeOnReceive: true },
}

class Client {
  async begin({ cipher_suite, now, external_psks }) {
    // The library asks the clock, and takes no time from outside.
    Date.now = () => now * 1000
    this.state = undefined
    this.psks = Object.fromEntries(external_psks.map(({ psk_id, psk }) => [key(fromHex(psk_id)), fromHex(psk)]))
    this.cs = await suiteById(cipher_suite)
    return new Uint8Array()
  }

  get authenticator() {
    return this.state.keySchedule.epochAuthenticator
  }

  async join({ key_package, init_priv, encryption_priv, signature_priv, welcome, ratchet_tree, continues }) {
    const own = {
      initPrivateKey: fromHex(init_priv),
      hpkePrivateKey: fromHex(encryption_priv),
      signaturePrivateKey: fromHex(signature_priv),
    }
    const old = continues ? this.state : undefined
    this.state = await joinGroup(
      welcomeFrom(fromHex(welcome)),
      keyPackageFrom(fromHex(key_package)),
      own,
      makePskIndex(old, this.psks),
      this.cs,
      treeFrom(fromHex(ratchet_tree)),
      old,
      VECTOR_CONFIG,
    )
    return this.authenticator
  }

  join_external() {
    throw new Lacking(`ts-mls ${KNOWN_GAPS[1][1]}`)
  }

  async receive({ message }) {
    const decoded = decode(fromHex(message), ...HANDSHAKE)
    const index = makePskIndex(this.state, this.psks)
    const { newState } =
      decoded.wireformat === "mls_public_message"
        ? await processPublicMessage(this.state, decoded.publicMessage, index, this.cs)
        : await processPrivateMessage(this.state, decoded.privateMessage, index, this.cs)
    this.state = newState
    return this.authenticator
  }
}

async function outcome(client, line) {
  try {
    if (!["begin", "join", "join_external", "receive"].includes(line.do))
      throw new WrongArgument("there is no such thing to do")
    return { ok: Buffer.from(await client[line.do](line)).toString("hex") }
  } catch (error) {
    if (error instanceof Lacking) return { lacking: error.message }
    return { refused: error instanceof Error ? `${error.name}: ${error.message}` : String(error) }
  }
}

// Answers line by line until the input ends.
export async function replay() {
  const client = new Client()
  for await (const line of createInterface({ input: process.stdin }))
    process.stdout.write(`${JSON.stringify(await outcome(client, JSON.parse(line)))}\n`)
}
