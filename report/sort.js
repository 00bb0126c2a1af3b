// Tables sort by the column whose head is pressed, and back.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  table.querySelectorAll("th button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const th = button.parentElement, up = th.getAttribute("aria-sort") !== "ascending";
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
      [...body.rows]
        .sort((a, b) => (up ? 1 : -1) * value(a).localeCompare(value(b), undefined, { numeric: true }))
        .forEach((row) => body.append(row));
    });
  });
}
