// A folder that `slmtune export --format onnx` wrote → the probability of each label of a text.

import { Tokenizer } from "./node_modules/@huggingface/tokenizers/dist/tokenizers.min.mjs";
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

ort.env.wasm.numThreads = 1; // more of them need a server that isolates the page from others
ort.env.logLevel = "error";

const LIKELY = 0.5; // the probability from which a text has a label, if it may have several

export class Classifier {
  /** Load a model; `report` is told how many bytes of how many have arrived. Throws an Error whose message is for people. */
  static async load(folder, report) {
    const manifest = await fetchJson(`${folder}/manifest.json`);
    const file = Object.keys(manifest.files ?? {}).find((name) => name.endsWith(".onnx"));
    const config = await fetchJson(`${folder}/config.json`);
    if (!file || !config.architectures?.[0]?.endsWith("ForSequenceClassification"))
      throw new Error(`The model in the folder ${folder} does not classify texts. Export one whose rows have labels.`);
    const settings = await fetchJson(`${folder}/tokenizer_config.json`);
    const tokenizer = new Tokenizer(await fetchJson(`${folder}/tokenizer.json`), settings);
    const weights = await fetchBytes(`${folder}/${file}`, report);
    const session = await ort.InferenceSession.create(weights);
    return new Classifier(config, settings.model_max_length, tokenizer, session);
  }

  constructor(config, maxLength, tokenizer, session) {
    this.labels = Object.keys(config.id2label).map((_, number) => config.id2label[number]);
    this.several = config.problem_type === "multi_label_classification";
    this.maxLength = maxLength;
    this.tokenizer = tokenizer;
    this.session = session;
  }

  /** The labels of a text, the probability of each label of the model, and how many tokens of the text were read. */
  async classify(text) {
    const { ids, truncated } = this.tokenize(text);
    const values = {
      input_ids: ids,
      attention_mask: ids.map(() => 1),
      token_type_ids: ids.map(() => 0), // one text, so one segment
    };
    const inputs = Object.fromEntries(
      this.session.inputNames.map((name) => [
        name,
        new ort.Tensor("int64", BigInt64Array.from(values[name], BigInt), [1, ids.length]),
      ]),
    );
    const { logits } = await this.session.run(inputs);
    const probabilities = this.several ? sigmoid(logits.data) : softmax(logits.data);
    const chosen = this.several
      ? this.labels.filter((_, number) => probabilities[number] >= LIKELY)
      : [this.labels[probabilities.indexOf(Math.max(...probabilities))]];
    return { chosen, probabilities, tokens: ids.length, truncated };
  }

  /** The token ids of a text; one that is too long loses its end, but not the special tokens around it. */
  tokenize(text) {
    const [first, ...last] = this.tokenizer.encode("").ids;
    const inside = this.tokenizer.encode(text, { add_special_tokens: false }).ids;
    const room = this.maxLength - 1 - last.length;
    return { ids: [first, ...inside.slice(0, room), ...last], truncated: inside.length > room };
  }
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((one, two) => one + two);
  return powers.map((power) => power / sum);
}

function sigmoid(logits) {
  return Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
}

async function fetchFile(address) {
  const response = await fetch(address);
  if (!response.ok)
    throw new Error(
      `There is no ${address} beside this page. Export a model with: ` +
        "slmtune export ADAPTER --format onnx --quantization int8 --output-dir model",
    );
  return response;
}

async function fetchJson(address) {
  return (await fetchFile(address)).json();
}

async function fetchBytes(address, report) {
  const response = await fetchFile(address);
  const total = Number(response.headers.get("Content-Length"));
  const parts = [];
  let received = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    report((received += value.length), total);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
