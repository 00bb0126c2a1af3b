// Tables sort by the column whose head is pressed, and back: numbers by value,
// words by their letters, and what is empty or "–" last.
const compare = (a, b) => {
  const x = parseFloat(a), y = parseFloat(b), number = (v, text) => Number.isFinite(v) && v === Number(text);
  if (number(x, a) && number(y, b)) return x - y;
  return a.localeCompare(b, undefined, { numeric: true });
};
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  table.querySelectorAll("th button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const th = button.parentElement, up = th.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
      const empty = (row) => ["", "–"].includes(row.cells[column].textContent);
      [...body.rows]
        .sort((a, b) => empty(a) - empty(b) || (up ? 1 : -1) * compare(value(a), value(b)))
        .forEach((row) => body.append(row));
    });
  });
}
