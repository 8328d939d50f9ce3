// Asks a server everything that the tests compare, and prints it as JSON.
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const model = "tiny";
const messages = [{ role: "user", content: "hello" }];
const chat = { model, messages, max_tokens: 8, temperature: 0 };

const said = {};
said.models = (await client.models.list()).data.map((card) => card.id);
said.whole = (await client.chat.completions.create(chat)).choices[0].message.content;

said.streamed = "";
for await (const chunk of await client.chat.completions.create({
  ...chat,
  stream: true,
  stream_options: { include_usage: true },
})) {
  said.streamed += chunk.choices[0]?.delta.content ?? "";
  said.usage = chunk.usage ?? said.usage;
}

const ask = { model, input: "hello", max_output_tokens: 8, temperature: 0 };
said.response = (await client.responses.create(ask)).output_text;
said.events = "";
for await (const event of await client.responses.create({ ...ask, stream: true })) {
  said.events += event.type === "response.output_text.delta" ? event.delta : "";
}

const schema = { type: "object", properties: { up: { type: "boolean" } }, required: ["up"], additionalProperties: false };
const format = { type: "json_schema", json_schema: { name: "verdict", schema } };
const parsed = await client.chat.completions.create({ ...chat, max_tokens: 64, response_format: format });
said.parsed = JSON.parse(parsed.choices[0].message.content);

said.errors = [];
for (const fields of [{ model: "nobody" }, { temperature: 9 }]) {
  await client.chat.completions.create({ ...chat, ...fields }).catch((error) => {
    said.errors.push([error.constructor.name, error.status, error.param]);
  });
}
const stranger = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
await stranger.models.list().catch((error) => said.errors.push([error.constructor.name, error.status, error.code]));

console.log(JSON.stringify(said));
