// One member of a group as ts-mls keeps it: an immutable record for each epoch.
//
// Where the library has building blocks but no call of its own (updates, the external_pub
// extension), its exported functions are joined here; nothing of the protocol is computed.

import {
  createCommit,
  createGroup,
  createProposal,
  encodeMlsMessage,
  joinGroup,
  makePskIndex,
  processPrivateMessage,
  processPublicMessage,
} from "ts-mls"
import { encode as encodeTls } from "ts-mls/codec/tlsEncoder.js"
import { varLenDataEncoder } from "ts-mls/codec/variableLength.js"
import { signWithLabel } from "ts-mls/crypto/signature.js"
import { encodeLeafNodeTBS } from "ts-mls/leafNode.js"
import { encodeRatchetTree } from "ts-mls/ratchetTree.js"
import { makeResumptionPsk } from "ts-mls/resumption.js"

import {
  Lacking,
  WrongArgument,
  CONFIG,
  HANDSHAKE,
  key,
  decode,
  encodeWelcome,
  keyPackageFrom,
  welcomeFrom,
  treeFrom,
  ownLeaf,
  describedProposal,
} from "./convert.mjs"

// Errors by which the library shows that it lacks a feature rather than that a message was bad.
export const KNOWN_GAPS = [
  [
    /Could not decode (external_senders?|ExternalSender)/,
    "reads external_senders as one ExternalSender, not as a vector (12.1.8.1)",
  ],
  [
    /Invalid public key for the ciphersuite|Invalid length of the key/,
    "reads external_pub as a bare key, without its length prefix (12.4.3.2)",
  ],
]

// The library's own GroupInfo holds a bare key here; RFC 9420 (12.4.3.2) has it with its length.
export async function externalPub(state, cs) {
  const { publicKey } = await cs.hpke.deriveKeyPair(state.keySchedule.externalSecret)
  return encodeTls(varLenDataEncoder)(await cs.hpke.exportPublicKey(publicKey))
}

// ts-mls decides itself whether a commit carries a path, and takes no wish in the matter.
function refuseUnlessPathFits(proposals, wanted) {
  const types = proposals.map((p) => p.proposalType)
  const given = types.length === 0 || types.includes("update") || types.includes("remove")
  if (given) return
  if (types.includes("group_context_extensions"))
    throw new Lacking("ts-mls commits group-context extensions without the path that RFC 9420 (12.4) demands")
  if (wanted) throw new Lacking("ts-mls has no option to force a path into a commit")
}

export async function explainGaps(work) {
  try {
    return await work()
  } catch (error) {
    const gap = KNOWN_GAPS.find(([pattern]) => pattern.test(error?.message ?? ""))
    if (gap) throw new Lacking(`ts-mls ${gap[1]}: ${error.message}`)
    throw error
  }
}

// One member in one epoch: the library's record and what the interface adds to it.
export class Member {
  constructor(state, cs, encrypt, psks) {
    this.state = state
    this.cs = cs
    this.encrypt = encrypt
    this.psks = psks // base64 of the PSK's id -> secret; shared by all epochs of a member
    this.proposals = new Map() // own proposals of this epoch: encoded message -> cached entry
    this.updateKeys = new Map() // HPKE public key of an own update -> private key
    this.pending = undefined
  }

  next(state) {
    return new Member(state, this.cs, this.encrypt, this.psks)
  }

  get pskIndex() {
    return makePskIndex(this.state, Object.fromEntries(this.psks))
  }

  get wireAsPublicMessage() {
    return !this.encrypt
  }

  // The proposal is not left in the library's cache: a commit shall cover what it names, no more.
  async propose(proposal) {
    const { newState, message } = await createProposal(this.state, this.wireAsPublicMessage, proposal, this.cs)
    const encoded = encodeMlsMessage(message)
    this.proposals.set(key(encoded), newState.unappliedProposals)
    this.state = { ...newState, unappliedProposals: {} }
    return encoded
  }

  async receive(state, data) {
    const message = decode(data, ...HANDSHAKE)
    const { newState } =
      message.wireformat === "mls_public_message"
        ? await processPublicMessage(state, message.publicMessage, this.pskIndex, this.cs)
        : await processPrivateMessage(state, message.privateMessage, this.pskIndex, this.cs)
    return newState
  }

  async withProposals(messages) {
    let state = this.state
    for (const data of messages) {
      const own = this.proposals.get(key(data))
      state = own
        ? { ...state, unappliedProposals: { ...state.unappliedProposals, ...own } }
        : await this.receive(state, data)
    }
    return this.withUpdatedLeafKey(state)
  }

  // The library never learns the private half of an own update; it belongs into its key path.
  withUpdatedLeafKey(state) {
    const leafIndex = state.privatePath.leafIndex
    const own = Object.values(state.unappliedProposals).find(
      (p) => p.proposal.proposalType === "update" && p.senderLeafIndex === leafIndex,
    )
    const secret = own && this.updateKeys.get(key(own.proposal.update.leafNode.hpkePublicKey))
    if (secret === undefined) return state
    const keys = { ...state.privatePath.privateKeys, [2 * leafIndex]: secret }
    return { ...state, privatePath: { ...state.privatePath, privateKeys: keys } }
  }

  async commit({ by_reference, by_value, force_path, external_tree }) {
    const state = await this.withProposals(by_reference)
    const extraProposals = by_value.map((d) =>
      describedProposal(d, this.cs, state.groupContext, state.ratchetTree),
    )
    const referenced = Object.values(state.unappliedProposals).map((p) => p.proposal)
    refuseUnlessPathFits([...referenced, ...extraProposals], force_path)
    const result = await createCommit(
      { state, pskIndex: this.pskIndex, cipherSuite: this.cs },
      { wireAsPublicMessage: this.wireAsPublicMessage, extraProposals, ratchetTreeExtension: !external_tree },
    )
    this.pending = result.newState
    return {
      commit: encodeMlsMessage(result.commit),
      welcome: encodeWelcome(result.welcome),
      ratchet_tree: external_tree ? encodeRatchetTree(result.newState.ratchetTree) : new Uint8Array(),
    }
  }

  async handleCommit({ proposal, commit }) {
    const state = await this.receive(await this.withProposals(proposal), commit)
    if (state.groupActiveState.kind === "removedFromGroup") throw new Error("this commit removes the member")
    return this.next(state)
  }

  takePending() {
    if (this.pending === undefined) throw new WrongArgument("no commit is pending in this state")
    const member = this.next(this.pending)
    this.pending = undefined
    return member
  }

  // A new leaf with a fresh HPKE key, signed for its place in the group.
  async updatedLeaf() {
    const { hpke, signature } = this.cs
    const pair = await hpke.generateKeyPair()
    const hpkePublicKey = await hpke.exportPublicKey(pair.publicKey)
    this.updateKeys.set(key(hpkePublicKey), await hpke.exportPrivateKey(pair.privateKey))
    const { signaturePublicKey, credential, capabilities, extensions } = ownLeaf(this.state)
    const leaf = { hpkePublicKey, signaturePublicKey, credential, capabilities, extensions, leafNodeSource: "update" }
    const { leafIndex } = this.state.privatePath
    const tbs = encodeLeafNodeTBS({ ...leaf, groupId: this.state.groupContext.groupId, leafIndex })
    const signed = await signWithLabel(this.state.signaturePrivateKey, "LeafNodeTBS", tbs, signature)
    return { ...leaf, signature: signed }
  }

  // A successor or a branch: a fresh group of one that adds the others and injects this epoch's PSK.
  async openSubgroup({ usage, own, cs, groupId, extensions, keyPackages, externalTree }) {
    const fresh = await createGroup(groupId, own.publicPackage, own.privatePackage, extensions, cs, CONFIG)
    const adds = keyPackages.map((data) => ({ proposalType: "add", add: { keyPackage: keyPackageFrom(data) } }))
    const preSharedKeyId = makeResumptionPsk(this.state, usage, cs).id
    const result = await createCommit(
      { state: fresh, pskIndex: this.pskIndex, cipherSuite: cs },
      {
        wireAsPublicMessage: this.wireAsPublicMessage,
        extraProposals: [...adds, { proposalType: "psk", psk: { preSharedKeyId } }],
        ratchetTreeExtension: !externalTree,
      },
    )
    return { member: new Member(result.newState, cs, this.encrypt, this.psks), welcome: result.welcome }
  }

  // Welcome into a subgroup of this epoch's group.
  async joinSubgroup(own, cs, welcome, tree) {
    const { publicPackage, privatePackage } = own
    const decoded = welcomeFrom(welcome)
    const old = this.state
    const state = await joinGroup(decoded, publicPackage, privatePackage, this.pskIndex, cs, treeFrom(tree), old, CONFIG)
    return new Member(state, cs, this.encrypt, this.psks)
  }
}
