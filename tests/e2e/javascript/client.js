// A client in JavaScript, generated from the descriptors of the public proto when it starts.
// Usage: node client.js DESCRIPTOR_SET HOST:PORT. Prints what the server answers, as JSON.
const fs = require("fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [descriptors, address] = process.argv.slice(2);
const options = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };
const definition = loader.loadFileDescriptorSetFromBuffer(fs.readFileSync(descriptors), options);
const { inference } = grpc.loadPackageDefinition(definition);
const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure());

const call = (method, request) =>
  new Promise((resolve) =>
    client[method](request, { deadline: Date.now() + 20000 }, (error, answer) =>
      resolve(error ? { code: error.code, details: error.details } : answer)
    )
  );

const floats = (values) => Buffer.from(new Float32Array(values).buffer);
const tensor = { name: "INPUT0", datatype: "FP32", shape: [1, 2] };

async function main() {
  const raw = await call("ModelInfer", {
    model_name: "identity_fp32",
    id: "from-javascript",
    inputs: [tensor],
    raw_input_contents: [floats([1.5, -2])],
  });
  const typed = await call("ModelInfer", {
    model_name: "versioned",
    model_version: "1",
    inputs: [{ ...tensor, contents: { fp32_contents: [1.5, -2] } }],
  });
  console.log(
    JSON.stringify({
      live: (await call("ServerLive", {})).live,
      ready: (await call("ModelReady", { name: "simple" })).ready,
      metadata: await call("ModelMetadata", { name: "fixed" }),
      config: (await call("ModelConfig", { name: "fixed" })).config.max_batch_size,
      raw: { id: raw.id, hex: raw.raw_output_contents[0].toString("hex") },
      typed: typed.raw_output_contents[0].toString("hex"),
      unknown: await call("ModelInfer", { model_name: "nope", inputs: [] }),
    })
  );
  client.close();
}

main();
