// What a person sees: the form, the progress of loading, and the probabilities as a table.

const [status, form, field, button, result] = ["#status", "form", "#text", "button", "#result"].map((name) =>
  document.querySelector(name),
);

function say(text, { error = false } = {}) {
  status.textContent = text;
  status.classList.toggle("error", error);
}

function show({ chosen, probabilities, tokens, truncated }, labels, milliseconds) {
  const order = labels.map((_, number) => number).sort((one, two) => probabilities[two] - probabilities[one]);
  result.querySelector("h2").textContent = chosen.join(", ") || "No label is likelier than not";
  result.querySelector("tbody").replaceChildren(
    ...order.map((number) => {
      const row = document.createElement("tr");
      row.style.setProperty("--share", probabilities[number]);
      row.classList.toggle("chosen", chosen.includes(labels[number]));
      const label = Object.assign(document.createElement("th"), { scope: "row", textContent: labels[number] });
      const share = Object.assign(document.createElement("td"), {
        className: "number",
        textContent: `${(100 * probabilities[number]).toFixed(1)} %`,
      });
      share.dataset.probability = probabilities[number];
      row.append(label, share);
      return row;
    }),
  );
  const cut = truncated ? ` The text is longer than the model reads: only its first ${tokens} tokens count.` : "";
  result.querySelector("p").textContent = `${tokens} tokens in ${milliseconds.toFixed(0)} ms.${cut}`;
  result.hidden = false;
}

async function start() {
  say("Loading the model.");
  const { Classifier } = await import("./classifier.js").catch(() => {
    throw new Error("A library is missing or cannot be loaded. Install both with: npm ci");
  });
  const classifier = await Classifier.load("model", (received, total) =>
    say(`Loading the model: ${(received / 2 ** 20).toFixed(0)}${total ? ` of ${(total / 2 ** 20).toFixed(0)}` : ""} MiB.`),
  );
  const ready = `Ready. Labels: ${classifier.labels.join(", ")}.`;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const before = performance.now();
      const answer = await classifier.classify(field.value);
      show(answer, classifier.labels, performance.now() - before);
      say(ready);
    } catch (error) {
      say(`The text could not be classified: ${error.message}`, { error: true });
    }
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  button.disabled = false;
  say(ready);
}

start().catch((error) => say(error.message, { error: true }));
