// The gRPC side of the ts-mls peer: loads the interface, turns each call into a method of Peer and
// each exception into a status. All knowledge of MLS is in the other files. With --replay there is no
// gRPC: test vectors are played (replay.mjs).

import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import grpc from "@grpc/grpc-js"
import loader from "@grpc/proto-loader"

import { Lacking, WrongArgument } from "./convert.mjs"
import { Peer } from "./peer.mjs"
import { replay } from "./replay.mjs"

const HOST = "127.0.0.1"
const INTERFACE = fileURLToPath(new URL("../../proto/mls_client.proto", import.meta.url))
const MAX_MESSAGE = 64 * 1024 * 1024

// A refusal is the library's, so its words go out unchanged.
function statusOf(error) {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  if (error instanceof Lacking) return { code: grpc.status.UNIMPLEMENTED, details: error.message }
  if (error instanceof WrongArgument) return { code: grpc.status.INVALID_ARGUMENT, details: error.message }
  return { code: grpc.status.INTERNAL, details: text }
}

// Calls run one after another: a state must not be read while another call is replacing it.
function serially(handlers) {
  let last = Promise.resolve()
  const wrap = (method) => (call, callback) => {
    last = last
      .then(() => method(call.request))
      .then((response) => callback(null, response ?? {}))
      .catch((error) => callback(statusOf(error)))
  }
  return Object.fromEntries(Object.entries(handlers).map(([name, method]) => [name, wrap(method)]))
}

function handlersFor(service, peer) {
  const handlers = {}
  for (const name of Object.keys(service)) {
    if (typeof peer[name] !== "function") throw new Error(`the peer has no method ${name}`)
    handlers[name] = (request) => peer[name](request)
  }
  return serially(handlers)
}

function main() {
  const { values } = parseArgs({ options: { port: { type: "string" }, replay: { type: "boolean" } } })
  if (values.replay) return replay()
  if (!values.port) throw new Error("usage: server.mjs --port N, or --replay")
  const definition = loader.loadSync(INTERFACE, { keepCase: true, longs: String, defaults: true })
  const { service } = grpc.loadPackageDefinition(definition).mls_client.MLSClient
  const server = new grpc.Server({
    "grpc.max_receive_message_length": MAX_MESSAGE,
    "grpc.max_send_message_length": MAX_MESSAGE,
  })
  server.addService(service, handlersFor(service, new Peer()))
  server.bindAsync(`${HOST}:${values.port}`, grpc.ServerCredentials.createInsecure(), (error, port) => {
    if (error) throw error
    console.log(`listening on ${HOST}:${port}`)
  })
}

main()
