// Runs an ONNX file in onnxruntime-web (wasm): one JSON object a line in, one out. See web.py.
//     node web.mjs MODEL.onnx THREADS
import * as ort from "onnxruntime-web";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

const KINDS = { float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array, uint8: Uint8Array, bool: Uint8Array };
ort.env.logLevel = "error";
ort.env.wasm.numThreads = Number(process.argv[3]);

function tensor({ type, dims, data }) {
  const bytes = Buffer.from(data, "base64");
  const copy = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  return new ort.Tensor(type, new KINDS[type](copy), dims);
}

function plain(value) {
  const { buffer, byteOffset, byteLength } = value.data;
  return { type: value.type, dims: value.dims, data: Buffer.from(buffer, byteOffset, byteLength).toString("base64") };
}

let session, feeds;
for await (const line of createInterface({ input: process.stdin })) {
  let reply;
  try {
    session ??= await ort.InferenceSession.create(new Uint8Array(readFileSync(process.argv[2])), { executionProviders: ["wasm"] });
    const request = JSON.parse(line);
    if (request.inputs) feeds = Object.fromEntries(Object.entries(request.inputs).map(([name, each]) => [name, tensor(each)]));
    const found = await session.run(feeds);
    // the same inputs again are run for their time: outputs are not sent
    reply = { outputs: request.inputs ? session.outputNames.map((name) => plain(found[name])) : [] };
  } catch (error) {
    reply = { error: String(error?.message ?? error) };
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
}
