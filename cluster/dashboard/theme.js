// Runs before the first paint, so that a chosen theme does not flash the other one first.
try {
  const chosen = localStorage.getItem("quorl.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* no storage: the system decides */ }
