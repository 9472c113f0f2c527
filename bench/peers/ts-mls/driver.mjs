// The benchmark driver of ts-mls; requests and answers by line (see ../README.md).

import { readFileSync } from "node:fs"
import { createInterface } from "node:readline"

import {
  createApplicationMessage,
  createCommit,
  createGroup,
  decodeGroupState,
  decodeMlsMessage,
  defaultKeyRetentionConfig,
  emptyPskIndex,
  encodeGroupState,
  encodeMlsMessage,
  generateKeyPackageWithKey,
  getCiphersuiteFromName,
  getCiphersuiteImpl,
  joinGroup,
  nobleCryptoProvider,
  processPrivateMessage,
} from "ts-mls"
import { defaultClientConfig } from "ts-mls/clientConfig.js"
import { ciphersuites } from "ts-mls/crypto/ciphersuite.js"
import { decodeRatchetTree, encodeRatchetTree } from "ts-mls/ratchetTree.js"
import { p256 } from "@noble/curves/nist.js"

const HOUR = 3600
const DAY = 24 * HOUR
const CONFIG = { ...defaultClientConfig, keyRetentionConfig: defaultKeyRetentionConfig }

class Clock {
  wall = []
  cpu = []

  async run(work) {
    const wall = process.hrtime.bigint()
    const cpu = process.cpuUsage()
    const result = await work()
    const used = process.cpuUsage(cpu)
    this.wall.push(Number(process.hrtime.bigint() - wall))
    this.cpu.push((used.user + used.system) * 1000)
    return result
  }

  answer(more = {}) {
    return { wall: this.wall, cpu: this.cpu, ...more }
  }
}

const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"))
const text = (data) => Buffer.from(data).toString("base64")

function decoded(data, wireformat) {
  const found = decodeMlsMessage(data, 0)
  if (found?.[0].wireformat !== wireformat) throw new Error(`expected ${wireformat}`)
  return found[0]
}

// One call's nanoseconds of the processor: the mean of many, since its clock is coarse.
async function price(call) {
  const calls = 200
  for (let i = 0; i < calls; i++) await call()
  const clock = new Clock()
  await clock.run(async () => {
    for (let i = 0; i < calls; i++) await call()
  })
  return clock.cpu[0] / calls
}

// The library's own key generation gives compressed points for P-256, where others read plain ones.
async function signatureKeys(suite) {
  if (getCiphersuiteFromName(suite.name).signature !== "P256") return suite.signature.keygen()
  const signKey = p256.utils.randomSecretKey()
  return { signKey, publicKey: p256.getPublicKey(signKey, false) }
}

class Driver {
  #suite
  #members = new Map()

  #member(name) {
    const member = this.#members.get(name)
    if (member === undefined) throw new Error(`no member is called ${name}`)
    return member
  }

  async #newMember(name) {
    const now = Math.floor(Date.now() / 1000)
    const lifetime = { notBefore: BigInt(now - HOUR), notAfter: BigInt(now + 28 * DAY) }
    const capabilities = {
      versions: ["mls10"],
      ciphersuites: [this.#suite.name],
      extensions: [],
      proposals: [],
      credentials: ["basic"],
    }
    const credential = { credentialType: "basic", identity: new TextEncoder().encode(name) }
    const keys = await signatureKeys(this.#suite)
    const member = await generateKeyPackageWithKey(credential, capabilities, lifetime, [], keys, this.#suite)
    this.#members.set(name, member)
    return member
  }

  async open({ suite, provider }) {
    const name = Object.keys(ciphersuites).find((key) => ciphersuites[key] === suite)
    const of = getCiphersuiteFromName(name)
    this.#suite = await (provider === "noble" ? getCiphersuiteImpl(of, nobleCryptoProvider) : getCiphersuiteImpl(of))
    const manifest = JSON.parse(readFileSync(new URL("package.json", import.meta.url)))
    return { version: `ts-mls ${manifest.dependencies["ts-mls"]}, Node.js ${process.versions.node}` }
  }

  async primitives() {
    const { signature, hpke } = this.#suite
    const [content, info, secret] = [300, 150, 32].map((length) => new Uint8Array(length).fill(7))
    const { signKey, publicKey } = await signatureKeys(this.#suite)
    const signed = await signature.sign(signKey, content)
    const pair = await hpke.deriveKeyPair(secret)
    const sealed = await hpke.seal(pair.publicKey, secret, info)
    const prices = {
      sign: await price(() => signature.sign(signKey, content)),
      verify: await price(() => signature.verify(publicKey, content, signed)),
      seal: await price(() => hpke.seal(pair.publicKey, secret, info)),
      open: await price(() => hpke.open(pair.privateKey, sealed.enc, sealed.ct, info)),
    }
    return { prices }
  }

  async package({ member }) {
    const { publicPackage } = await this.#newMember(member)
    const message = { version: "mls10", wireformat: "mls_key_package", keyPackage: publicPackage }
    return { package: text(encodeMlsMessage(message)) }
  }

  async create({ member }) {
    const made = await this.#newMember(member)
    const id = crypto.getRandomValues(new Uint8Array(16))
    made.state = await createGroup(id, made.publicPackage, made.privatePackage, [], this.#suite, CONFIG)
    return {}
  }

  async join({ member, welcome, tree }) {
    const joining = this.#member(member)
    const [message, beside] = [bytes(welcome), tree && bytes(tree)]
    const clock = new Clock()
    joining.state = await clock.run(async () => {
      const ratchetTree = beside ? decodeRatchetTree(beside, 0)[0] : undefined
      const { welcome } = decoded(message, "mls_welcome")
      const { publicPackage, privatePackage } = joining
      const more = [ratchetTree, undefined, CONFIG]
      return joinGroup(welcome, publicPackage, privatePackage, emptyPskIndex, this.#suite, ...more)
    })
    return clock.answer()
  }

  async commit({ member, packages, remove, inside }) {
    const committer = this.#member(member)
    const given = packages.map(bytes)
    const clock = new Clock()
    const [made, commit, welcome] = await clock.run(async () => {
      const adds = given.map((data) => decoded(data, "mls_key_package").keyPackage)
      const extraProposals = [
        ...remove.map((removed) => ({ proposalType: "remove", remove: { removed } })),
        ...adds.map((keyPackage) => ({ proposalType: "add", add: { keyPackage } })),
      ]
      const context = { state: committer.state, cipherSuite: this.#suite }
      const made = await createCommit(context, { extraProposals, ratchetTreeExtension: inside })
      const welcome = made.welcome && { version: "mls10", wireformat: "mls_welcome", welcome: made.welcome }
      return [made, encodeMlsMessage(made.commit), welcome && encodeMlsMessage(welcome)]
    })
    committer.state = made.newState
    return clock.answer({
      commit: text(commit),
      welcome: welcome ? text(welcome) : null,
      tree: welcome && !inside ? text(encodeRatchetTree(committer.state.ratchetTree)) : null,
    })
  }

  // Commits and application messages alike: the library has one call for both.
  async #receive(clock, receiver, data) {
    return clock.run(async () => {
      const { privateMessage } = decoded(data, "mls_private_message")
      const result = await processPrivateMessage(receiver.state, privateMessage, emptyPskIndex, this.#suite)
      receiver.state = result.newState
      return result
    })
  }

  async process({ member, commit }) {
    const clock = new Clock()
    const { kind } = await this.#receive(clock, this.#member(member), bytes(commit))
    if (kind !== "newState") throw new Error("expected a Commit")
    return clock.answer()
  }

  async encrypt({ member, size, count }) {
    const sender = this.#member(member)
    const data = new Uint8Array(size)
    const clock = new Clock()
    const messages = []
    for (let i = 0; i < count; i++) {
      const sent = await clock.run(async () => {
        const made = await createApplicationMessage(sender.state, data, this.#suite)
        sender.state = made.newState
        const { privateMessage } = made
        return encodeMlsMessage({ version: "mls10", wireformat: "mls_private_message", privateMessage })
      })
      messages.push(text(sent))
    }
    return clock.answer({ messages })
  }

  async decrypt({ member, messages }) {
    const receiver = this.#member(member)
    const clock = new Clock()
    for (const data of messages.map(bytes)) {
      const { kind } = await this.#receive(clock, receiver, data)
      if (kind !== "applicationMessage") throw new Error("expected an application message")
    }
    return clock.answer()
  }

  async save({ member }) {
    const saving = this.#member(member)
    const clock = new Clock()
    saving.saved = await clock.run(async () => encodeGroupState(saving.state))
    return clock.answer({ bytes: saving.saved.length })
  }

  async load({ member }) {
    const { saved } = this.#member(member)
    const clock = new Clock()
    await clock.run(async () => ({ ...decodeGroupState(saved, 0)[0], clientConfig: CONFIG }))
    return clock.answer({ bytes: saved.length })
  }

  async drop({ member }) {
    this.#members.delete(member)
    return {}
  }
}

const driver = new Driver()
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line)
  let answer
  try {
    answer = await driver[request.do](request)
  } catch (error) {
    answer = { error: `${error.name}: ${error.message}` }
  }
  process.stdout.write(JSON.stringify(answer) + "\n")
}
