"use strict";
// Filters the lists of rows. Without this script the page shows all of them.
const STEP = 10; // rows that are shown at first, and with each click
for (const tools of document.querySelectorAll(".tools")) {
  const rows = [...tools.parentElement.querySelectorAll(".rows > li")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const [words, kind, label] = ["words", "kind", "label"].map((name) => tools.querySelector(`[data-filter=${name}]`));
  const count = tools.querySelector("output");
  const more = tools.parentElement.querySelector(".more");
  let limit = STEP;
  const update = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (row, place) =>
      (!kind?.value || row.dataset.kinds.split(" ").includes(kind.value)) &&
      (!label?.value || row.dataset.label === label.value) &&
      wanted.every((word) => texts[place].includes(word));
    const shown = rows.filter(matches);
    rows.forEach((row) => (row.hidden = true));
    shown.slice(0, limit).forEach((row) => (row.hidden = false));
    count.textContent = `${Math.min(limit, shown.length)} of ${shown.length} rows`;
    more.hidden = shown.length <= limit;
  };
  tools.addEventListener("input", () => {
    limit = STEP;
    update();
  });
  more.addEventListener("click", () => {
    limit += STEP;
    update();
  });
  tools.hidden = false;
  update();
}
