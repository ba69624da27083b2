// Asks a model in every framing, and prints what the official client made of each answer, a line each.

import { createRequire } from "node:module";

const [place, baseURL, apiKey] = process.argv.slice(2);
const OpenAI = createRequire(`${place}/`)("openai").default;

// What a client may act on. A chunk's `"usage": null` says nothing.
function told(answer) {
  const { usage, ...rest } = answer;
  return usage == null ? rest : { ...rest, usage };
}

async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(told(part));
  return parts;
}

const client = (path) => new OpenAI({ baseURL: baseURL + path, apiKey, maxRetries: 0, timeout: 30_000 });
const print = (value) => console.log(JSON.stringify(value));

for (const path of ["/v1", "/packed/v1"]) {
  const chats = client(path).chat.completions;
  for (const framing of ["whole", "bytes", "crlf", "odd", "pings", "silent"]) {
    const ask = { model: "m", messages: [{ role: "user", content: framing }] };
    print(await all(await chats.create({ ...ask, stream: true })));
    print(await all(await chats.create({ ...ask, stream: true, stream_options: { include_usage: true } })));
    print(told(await chats.create(ask)));
  }
}

const responses = client("/v1").responses;
for (const framing of ["whole", "bytes", "crlf", "odd", "pings"]) {
  print(await all(await responses.create({ model: "m", input: framing, stream: true })));
  console.log((await responses.create({ model: "m", input: framing })).output_text);
}
