// A run's page: which completions are shown.
const kinds = document.getElementById("kinds");
if (kinds) kinds.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  for (const other of all("button", kinds)) other.setAttribute("aria-pressed", String(other === button));
  for (const item of all("#completions > li")) item.hidden = button.value !== "all" && item.dataset.kind !== button.value;
});
