
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        const data = cell.querySelector("data");
        return data ? Number(data.value) : cell.textContent.trim().toLowerCase();
      };
      const body = table.tBodies[0];
      const order = (a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0);
      body.append(...[...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
    });
  });
}
const area = document.getElementById("filter");
if (area) {
  area.hidden = false;
  const field = area.querySelector("input");
  const told = area.querySelector("output");
  const tiles = [...document.querySelectorAll("figure.tile")];
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    let shown = 0;
    for (const tile of tiles) {
      tile.hidden = !tile.textContent.toLowerCase().includes(wanted);
      shown += tile.hidden ? 0 : 1;
    }
    told.textContent = wanted ? `${shown} of ${tiles.length} images shown` : "";
  });
}
