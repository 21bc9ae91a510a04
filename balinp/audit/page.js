"use strict";
const rows = [...document.querySelectorAll(".row")], find = document.getElementById("find"), status = document.getElementById("status");
function sift() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean), kind = status.value.toLowerCase();
  for (const row of rows) row.hidden = !(row.dataset.words.includes(kind) && words.every(w => row.dataset.words.includes(w)));
  for (const part of document.querySelectorAll("main > section:not(#graph)")) part.hidden = ![...part.querySelectorAll(".row")].some(r => !r.hidden);
}
function show() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const row = target.closest("details");
  if (row && row.hidden) { find.value = ""; status.value = ""; sift(); }
  if (row) row.open = true;
  target.scrollIntoView();
}
function light(id) {
  for (const edge of document.querySelectorAll(".edge")) edge.classList.toggle("lit", edge.dataset.from === id || edge.dataset.to === id);
  for (const node of document.querySelectorAll(".node")) node.classList.toggle("lit", node.dataset.id === id);
}
find.addEventListener("input", sift);
find.addEventListener("keydown", e => { const first = rows.find(r => !r.hidden); if (e.key === "Enter" && first) { first.open = true; first.scrollIntoView(); } });
status.addEventListener("change", sift);
addEventListener("hashchange", show);
document.addEventListener("click", e => { const a = e.target.closest("a[href^='#']"); if (a && a.getAttribute("href") === location.hash) show(); });
for (const node of document.querySelectorAll(".node")) { node.addEventListener("mouseenter", () => light(node.dataset.id)); node.addEventListener("mouseleave", () => light(null)); }
show();
